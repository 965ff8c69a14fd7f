"""Random requests from our own OpenAPI document: whatever comes, no 5xx and no surprise."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.server.app import create_app
from tests.golden_cases import GOLDEN

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api() -> Iterator[schemathesis.BaseSchema]:
    """The schema of a server on a real port; it must have outlived the run."""
    config = ServeConfig(reward_model=[str(GOLDEN / "armorm")], device="cpu", max_items=8)
    metrics = Metrics()
    engines = load_engines(config, metrics)
    app = create_app(config, engines, metrics)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and engines["armorm"].is_ready):
        time.sleep(0.01)
    (listener,) = server.servers[0].sockets
    yield schemathesis.openapi.from_url(
        f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"
    )
    assert engines["armorm"].is_ready, "a random request took the engine down"
    server.should_exit = True
    thread.join(timeout=30)


EXAMPLES = {"POST /v1/score": 400}


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_answered_with_a_server_error(
    api: schemathesis.BaseSchema, mode: GenerationMode
) -> None:
    """Requests that follow the document, and requests that break it."""
    labels: list[str] = []
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue

        @settings(max_examples=EXAMPLES.get(operation.label, 20), deadline=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        check()
        labels.append(operation.label)
    assert "POST /v1/score" in labels
    assert mode is GenerationMode.NEGATIVE or len(labels) >= 8


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data", ""])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_client_error(
    api: schemathesis.BaseSchema, media_type: str, body: bytes
) -> None:
    url = (api.location or "").replace("/openapi.json", "/v1/score")
    answer = httpx.post(url, content=body, headers={"content-type": media_type})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]
