"""Health, models, version, metrics, keys."""

from __future__ import annotations

import asyncio

import httpx
import pytest

import steerward
from steerward.protocol.scoring import ModelCard, ModelList
from tests.server.conftest import BODY, StartApp, client_of

pytestmark = pytest.mark.anyio


async def test_models_tell_objectives_limits_and_weights(start_app: StartApp) -> None:
    async with client_of(await start_app("armorm", "seqcls-llama-1")) as client:
        answer = await client.get("/v1/models")
        one = await client.get("/v1/models/seqcls-llama-1")
        missing = await client.get("/v1/models/gpt")
    cards = ModelList.model_validate(answer.json()).data
    assert [card.id for card in cards] == ["armorm", "seqcls-llama-1"]
    armorm = cards[0]
    assert isinstance(armorm, ModelCard)
    assert armorm.has_gate
    assert armorm.architecture == "armorm"
    assert len(armorm.objectives) == 19
    assert armorm.max_input_tokens == 2048
    assert (armorm.dtype, armorm.device) == ("float32", "cpu")
    assert one.json()["has_gate"] is False
    assert missing.status_code == 404


async def test_health_follows_the_engines(start_app: StartApp) -> None:
    app = await start_app()
    engine = app.state.steerward.engines["armorm"]
    async with client_of(app) as client:
        for path in ("/health", "/readyz", "/livez"):
            assert (await client.get(path)).status_code == 200
        engine.begin_drain()
        for path in ("/health", "/readyz"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "shutting down" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/livez")).status_code == 200
        refused = await client.post("/v1/score", json=BODY)
        assert refused.status_code == 503


async def test_readiness_is_503_before_the_model_is_warm(start_app: StartApp) -> None:
    """The app answers health checks from the first moment, and says that it is not ready."""
    from steerward.config import ServeConfig
    from steerward.engine.loading import load_engines
    from steerward.metrics import Metrics
    from steerward.server.app import create_app
    from tests.golden_cases import GOLDEN

    config = ServeConfig(reward_model=[str(GOLDEN / "armorm")], device="cpu")
    metrics = Metrics()
    engines = load_engines(config, metrics)
    app = create_app(config, engines, {}, metrics)
    async with client_of(app) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "warming up" in answer.json()["error"]["message"]
        assert (await client.get("/livez")).status_code == 200
        async with app.router.lifespan_context(app):
            await engines["armorm"].wait_until_ready()
            assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


async def test_readiness_is_503_after_the_worker_died(start_app: StartApp) -> None:
    app = await start_app()
    engine = app.state.steerward.engines["armorm"]
    del engine.model.backbone.model.layers[0].mlp.up_proj
    async with client_of(app) as client:
        broken = await client.post("/v1/score", json=BODY)
        assert broken.status_code == 500
        assert broken.json()["error"]["code"] == "engine_failure"
        while engine.is_ready:
            await asyncio.sleep(0.001)
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "restart the server" in answer.json()["error"]["message"]
        assert (await client.post("/v1/score", json=BODY)).status_code == 503


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": steerward.__version__}


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    await client.post("/v1/score", json=BODY)
    await client.post("/v1/score", json={})
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'steerward_requests_total{route="/v1/score",status="200"} 1.0',
        'steerward_requests_total{route="/v1/score",status="422"} 1.0',
        'steerward_refusals_total{code="invalid_request"} 1.0',
        'steerward_ready{model="armorm"} 1.0',
        'steerward_stage_duration_seconds_count{model="armorm",stage="inference"} 1.0',
    ):
        assert line in answer.text


async def test_metrics_hold_nothing_a_client_sends(client: httpx.AsyncClient) -> None:
    await client.get("/secret-path-of-a-client")
    await client.post("/v1/score", json={**BODY, "model": "secret-model"})
    assert "secret" not in (await client.get("/metrics")).text


async def test_key_is_needed_where_one_is_set(start_app: StartApp) -> None:
    app = await start_app(api_key=["first", "second-ü"])
    async with client_of(app) as client:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic first"},
            {"authorization": "first"},
            {"authorization": "Bearer "},
        ):
            answer = await client.post("/v1/score", json=BODY, headers=headers)
            assert answer.status_code == 401, headers
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "unauthorized"
        for key in (b"first", "second-ü".encode()):
            headers = {b"authorization": b"Bearer " + key}
            answer = await client.post("/v1/score", json=BODY, headers=headers)
            assert answer.status_code == 200
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/metrics")).status_code == 401
        for path in ("/health", "/livez", "/readyz", "/version", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_metrics_may_be_public(start_app: StartApp) -> None:
    async with client_of(await start_app(api_key=["k"], public_metrics=True)) as client:
        assert (await client.get("/metrics")).status_code == 200


async def test_unknown_routes_and_methods_are_error_objects(client: httpx.AsyncClient) -> None:
    missing = await client.get("/v2/score")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    wrong = await client.put("/v1/score", json=BODY)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("given", ["", "has spaces", "x" * 200, "bad\tid"])
async def test_odd_request_ids_are_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/livez", headers={"x-request-id": given})
    assert answer.headers["x-request-id"].startswith("req-")
