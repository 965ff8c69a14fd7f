"""What the URL of a caller says of the reward model, by its query or by a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from steerward.config import ServeConfig, load_settings
from steerward.protocol.errors import NotFound, UnknownObjective
from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import joined, native, post, prompts
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

DIRECTION = {"objective_0": 0.97, "objective_4": -0.26}
WEIGHTS = {"objective_0": 1.0, "objective_3": 2.0}
IN_URL = "objective_0:0.97;objective_4:-0.26"
PROFILES: dict[str, Any] = {
    "profiles": {"concise": DIRECTION},
    "compat_profiles": {
        "safe": {"model": "armorm", "weights": WEIGHTS, "template": "chatml"},
        "terse": {"direction": "concise"},
        "short": {"direction": DIRECTION},
        "plain": {"template": "none"},
    },
}


@pytest.fixture
async def app(start_app: StartApp) -> FastAPI:
    return await start_app(**PROFILES)


@pytest.mark.parametrize(
    ("url", "steering", "kind"),
    [
        ("/get_reward", {}, "score"),
        ("/compat/openrlhf/get_reward?model=armorm&template=chatml", {}, "score"),
        (f"/get_reward?direction={IN_URL}", {"direction": DIRECTION}, "direction_score"),
        ("/get_reward?direction=concise", {"direction": DIRECTION}, "direction_score"),
        ("/p/concise/get_reward", {"direction": DIRECTION}, "direction_score"),
        ("/p/terse/get_reward?model=armorm", {"direction": DIRECTION}, "direction_score"),
        ("/p/short/get_reward", {"direction": DIRECTION}, "direction_score"),
        (
            "/get_reward?weights=objective_0:1;objective_3:2e0",
            {"weights": WEIGHTS},
            "weighted_score",
        ),
        ("/p/safe/get_reward", {"weights": WEIGHTS}, "weighted_score"),
    ],
)
async def test_url_says_which_score_is_answered(
    app: FastAPI, url: str, steering: dict[str, Any], kind: str
) -> None:
    async with client_of(app) as client:
        answer = await post(client, url, {"query": joined()})
        expected = [candidate[kind] for candidate in await native(client, **steering)]
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-steerward-score"] == kind
    assert answer.headers["x-weight-version"]
    assert answer.json()["rewards"] == pytest.approx(expected, abs=10 * GOLDEN_TOLERANCE)


@pytest.mark.parametrize(
    "path", ["/v1/score/evaluation", "/classify", "/v1/embeddings", "/get_reward"]
)
async def test_every_route_is_found_under_a_profile_too(app: FastAPI, path: str) -> None:
    keys = {"/v1/score/evaluation": "messages", "/get_reward": "query"}
    async with client_of(app) as client:
        answer = await post(client, f"/p/concise{path}", {keys.get(path, "input"): joined()})
    assert answer.status_code == 200
    assert answer.headers["x-steerward-score"] == "direction_score"


async def test_template_of_a_profile_holds(app: FastAPI) -> None:
    async with client_of(app) as client:
        other = await post(client, "/p/safe/get_reward", {"query": joined("llama3")})
        without = await post(client, "/p/plain/get_reward", {"query": joined()})
        with_prompts = {"query": joined(), "prompts": prompts()}
        as_text = await post(client, "/p/plain/get_reward", with_prompts)
    assert other.status_code == without.status_code == 422
    assert "ChatML" in other.json()["error"]["message"]
    # One BOS and one prompt: the marks are the text of a user turn then.
    assert as_text.status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("directoin=a:1", 422, "unknown option 'directoin'; known: model"),
        ("model=armorm&model=armorm", 422, "gives model twice"),
        ("model=other", 404, "no model 'other'"),
        ("template=vicuna", 422, "no template 'vicuna'; known: llama3"),
        ("direction=objective_0", 422, "no direction 'objective_0'"),
        ("direction=objective_0:", 422, "is no number of an objective"),
        ("direction=:1", 422, "is no number of an objective"),
        ("direction=objective_0:nan", 422, "is no number of an objective"),
        ("direction=objective_0:1;objective_0:2", 422, "given twice"),
        ("direction=objective_0:0", 422, "non-zero length"),
        ("direction=helpfulness:1", 422, "unknown objective 'helpfulness'"),
        ("weights=objective_0:-1", 422, "at least 0"),
        ("weights=objective_0:1&direction=objective_0:1", 422, "leave one out"),
    ],
)
async def test_option_that_does_not_fit_is_refused(
    app: FastAPI, query: str, status: int, words: str
) -> None:
    async with client_of(app) as client:
        answer = await post(client, f"/get_reward?{query}", {"query": joined()})
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


async def test_query_does_not_overrule_a_profile(app: FastAPI) -> None:
    async with client_of(app) as client:
        twice = await post(client, "/p/safe/get_reward?template=gemma", {"query": joined()})
        mixed = await post(client, f"/p/safe/get_reward?direction={IN_URL}", {"query": joined()})
        unknown = await post(client, "/p/loud/get_reward", {"query": joined()})
    assert twice.status_code == mixed.status_code == 422
    assert "sets template already" in twice.json()["error"]["message"]
    assert "leave one out" in mixed.json()["error"]["message"]
    assert unknown.status_code == 404
    assert "known: safe, terse, short, plain, concise" in unknown.json()["error"]["message"]


async def test_model_without_a_score_needs_weights_or_a_direction(start_app: StartApp) -> None:
    async with client_of(await start_app("seqcls-mistral-10")) as client:
        names = (await client.get("/v1/models")).json()["data"][0]["objectives"]
        url = f"/get_reward?weights={names[0]['name']}:1"
        none = await post(client, "/get_reward", {"query": joined()})
        weighted = await post(client, url, {"query": joined()})
    assert none.status_code == 422
    assert "?weights= or ?direction=" in none.json()["error"]["message"]
    assert weighted.status_code == 200


def test_profiles_come_from_tables_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[compat_profiles.safe]\nmodel = 'm'\nweights = {a = 1}\ntemplate = 'gemma'")
    config = load_settings(ServeConfig, {}, files=[file], environment={})
    profile = config.compat_profiles["safe"]
    assert (profile.model, profile.weights, profile.template) == ("m", {"a": 1.0}, "gemma")
    text = '{"safe": {"direction": {"a": 1}}}'
    config = load_settings(ServeConfig, {}, environment={"STEERWARD_COMPAT_PROFILES": text})
    assert config.compat_profiles["safe"].direction == {"a": 1.0}


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"a,b": {}}, "part of a URL"),
        ({"concise": {}}, "already"),
        ({"x": {"direction": {"a": 1}, "weights": {"a": 1}}}, "either direction or weights"),
        ({"x": {"direction": "loud"}}, "no direction 'loud' in profiles; known: concise"),
        ({"x": {"direction": {"a": 0}}}, "non-zero"),
        ({"x": {"weights": {"a": -1}}}, "at least 0"),
        ({"x": {"template": "vicuna"}}, "llama3"),
        ({"x": {"colour": "red"}}, "Extra inputs"),
    ],
)
def test_profile_that_does_not_fit_is_refused_at_the_start(
    profile: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        ServeConfig(profiles={"concise": DIRECTION}, compat_profiles=profile)


async def test_profile_of_a_model_that_is_not_there_stops_the_start(start_app: StartApp) -> None:
    with pytest.raises(NotFound, match="profile 'x': there is no model 'm' here; known: armorm"):
        await start_app(compat_profiles={"x": {"model": "m"}})
    with pytest.raises(UnknownObjective, match="profile 'x': unknown objective 'taste'"):
        await start_app(compat_profiles={"x": {"weights": {"taste": 1.0}}})
