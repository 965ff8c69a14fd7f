"""Random requests from our own OpenAPI document: whatever comes, no 5xx and no surprise."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.models.reward_model import RewardModel
from steerward.policy.loading import load_policies
from steerward.server.app import create_app
from steerward.server.jobs import open_jobs
from tests.golden_cases import GOLDEN


def no_error_of_ours(ctx: Any, response: Any, case: schemathesis.Case) -> None:
    """A deadline of a millisecond may pass; nothing else of 500 and above may happen."""
    assert response.status_code < 500 or response.status_code == 504, response.text


CHECKS = [
    no_error_of_ours,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(
    policy_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[schemathesis.BaseSchema]:
    """The schema of a server on a real port; it must have outlived the run."""
    config = ServeConfig(
        reward_model=[str(GOLDEN / "armorm")],
        policy=[policy_folder],
        device="cpu",
        policy_device="cpu",
        max_items=8,
        max_completion_tokens=4,
        state_dir=tmp_path_factory.mktemp("state"),
    )
    metrics = Metrics()
    engines = load_engines(config, metrics)
    policies = load_policies(config, taken=list(engines))
    app = create_app(config, engines, policies, metrics, open_jobs(config, policies, engines))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and engines["armorm"].is_ready and policies["tiny"].is_ready):
        time.sleep(0.01)
    (listener,) = server.servers[0].sockets
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    document = httpx.get(f"{url}/openapi.json").json()
    make_scorable(document, engines["armorm"].model)
    make_drawable(document)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    yield schema
    assert engines["armorm"].is_ready, "a random request took the engine down"
    assert policies["tiny"].is_ready, "a random request took the policy down"
    server.should_exit = True
    thread.join(timeout=30)


def make_scorable(document: dict[str, Any], model: RewardModel) -> None:
    """Write into the document what it cannot say, so that random requests get past the checks.

    The objectives of the model, turns in an order that can be scored, and ids of its vocabulary.
    """
    objectives = model.objectives.names
    schemas = document["components"]["schemas"]
    properties = schemas["ScoreRequest"]["properties"]
    del properties["model"], schemas["TokenizeRequest"]["properties"]["model"]
    weights, direction, directions = (
        properties[name]["anyOf"][0] for name in ("weights", "direction", "directions")
    )
    weights["additionalProperties"] = {"type": "number", "exclusiveMinimum": 0}
    for mapping in (weights, direction, directions["items"]):
        number = mapping.pop("additionalProperties")
        mapping["properties"] = dict.fromkeys(objectives, number)
        mapping |= {"additionalProperties": False, "minProperties": 1}
    turns = {"type": "array", "items": turn("user"), "minItems": 1}
    pair = [turn("user"), turn("assistant")]
    for item in (schemas["ScoreItem"], schemas["TextItem"]):
        prompt, messages = (item["properties"][name] for name in ("prompt", "messages"))
        prompt["anyOf"][0]["oneOf"][1] = turns
        messages["anyOf"][0] = {"type": "array", "prefixItems": pair, "minItems": 2, "maxItems": 2}
    # Answers hold such ids too, and those may be any.
    ids = scorable_ids(deepcopy(schemas["PromptTokens"]), model)
    schemas["ScoreItem"]["properties"]["tokens"]["anyOf"][0] = ids


def make_drawable(document: dict[str, Any]) -> None:
    """The same for completions: objectives of the rule, turns that can be answered, lengths."""
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        schema = document["components"]["schemas"][name]
        properties = schema["properties"]
        del properties["model"], properties["reward_model"]
        # What fits together only with another field, or is refused unless it is null.
        for field in ("angle", "best_of", "stream_options", "max_tokens", "top_logprobs"):
            properties.pop(field, None)
        properties["max_completion_tokens"]["anyOf"][0]["maximum"] = 4
        properties["n"]["anyOf"][0]["maximum"] = 4
        properties["direction"] = {
            "type": "object",
            "properties": {"helpfulness": {"const": 1.0}, "verbosity": {"enum": [-0.5, 0.0, 0.5]}},
            "required": ["helpfulness"],
            "additionalProperties": False,
        }
        if name == "ChatCompletionRequest":
            properties["messages"]["items"] = turn("user")
        else:
            properties["prompt"] = {"type": "string", "pattern": r"\S"}


def scorable_ids(tokens: dict[str, Any], model: RewardModel) -> dict[str, Any]:
    bos = model.chat.tokenizer.bos_token_id
    prompt, candidate = tokens["properties"]["prompt"], tokens["properties"]["candidates"]["items"]
    # Not the special ones, so that the conversation has one BOS. Listed, because 5.0 is an integer
    # to JSON Schema and none to us.
    plain = {"enum": list(range(bos))}
    prompt |= {"prefixItems": [{"const": bos}], "items": plain}
    candidate["items"] = plain
    tokens["properties"]["gating_position"] = {"const": 0}
    tokens["required"].append("gating_position")
    return tokens


def turn(role: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"role": {"const": role}, "content": {"type": "string", "pattern": r"\S"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }


EXAMPLES = {
    "POST /v1/score": 400,
    "POST /v1/chat/completions": 100,
    "POST /v1/completions": 100,
}
# Of them, those that must be scored, as text alone and with ids among them, and those that must
# be refused in the run that breaks the document. How many of the others pass a deadline of their
# own choice depends on the machine.
FEWEST_SCORED, FEWEST_SCORED_IDS, FEWEST_REFUSED = 100, 20, 200
FEWEST_DRAWN = 20


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_answered_with_a_server_error(
    api: schemathesis.BaseSchema, mode: GenerationMode
) -> None:
    """Requests that follow the document, and requests that break it."""
    statuses: dict[str, Counter[int]] = {}
    by_ids: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue
        if operation.label == "POST /pause":
            # It would hold whatever comes after it.
            continue

        seen = statuses[operation.label] = Counter()

        @settings(max_examples=EXAMPLES.get(operation.label, 20), deadline=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            status = case.call_and_validate(checks=CHECKS).status_code
            seen[status] += 1  # noqa: B023
            by_ids[status] += operation.label == "POST /v1/score" and has_ids(case.body)  # noqa: B023

        check()
    scoring = statuses["POST /v1/score"]
    if mode is GenerationMode.POSITIVE:
        assert len(statuses) >= 9
        assert scoring[200] >= FEWEST_SCORED, scoring
        assert by_ids[200] >= FEWEST_SCORED_IDS, by_ids
        assert statuses["POST /v1/tokenize"][200] >= 10, statuses["POST /v1/tokenize"]
        for label in ("POST /v1/chat/completions", "POST /v1/completions"):
            assert statuses[label][200] >= FEWEST_DRAWN, statuses[label]
    else:
        assert scoring[422] >= FEWEST_REFUSED, scoring


def has_ids(body: Any) -> bool:
    """Return whether an item of a request comes as token ids."""
    items = body.get("items") if isinstance(body, dict) else None
    return isinstance(items, list) and any(
        isinstance(item, dict) and item.get("tokens") is not None for item in items
    )


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data", ""])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_client_error(
    api: schemathesis.BaseSchema, media_type: str, body: bytes
) -> None:
    url = f"{api.config.base_url}/v1/score"
    answer = httpx.post(url, content=body, headers={"content-type": media_type})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]
