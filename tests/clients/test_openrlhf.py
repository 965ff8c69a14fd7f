"""OpenRLHF's calls of a reward function from a file: one sample each, in threads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from steerward.clients import Client
from steerward.clients.openrlhf import reward_function
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

CHATML = "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


def test_rendered_sample_gets_the_score_of_its_messages(url: str) -> None:
    reward_func = reward_function(url, api_key=KEY, template="chatml")
    found = reward_func([f"{CHATML}Fine.<|im_end|>"], [CHATML], [""])
    with Client(url, api_key=KEY) as client:
        candidate = client.score("Hello?", ["Fine."]).items[0].candidates[0]
    assert found["rewards"] == found["scores"] == [pytest.approx(candidate.score, abs=1e-4)]
    # One-element lists by flat names, which is all that OpenRLHF can turn into tensors.
    logs = {f"objective/{name}": [reward] for name, reward in candidate.rewards.items()}
    assert found["extra_logs"] == {name: pytest.approx(one, abs=1e-4) for name, one in logs.items()}


def test_plain_text_needs_no_template(url: str) -> None:
    reward_func = reward_function(url, api_key=KEY)
    plain = reward_func(["Hello?Fine.</s>"], ["Hello?"], [None])
    rendered = reward_function(url, api_key=KEY, template="chatml")
    assert plain["rewards"] == pytest.approx(
        rendered([f"{CHATML}Fine."], [CHATML], [None])["rewards"], abs=1e-4
    )


def test_empty_lists_have_empty_rewards(url: str) -> None:
    found = reward_function(url)([], [], [])
    assert found == {"rewards": [], "scores": [], "extra_logs": {}}


@pytest.mark.filterwarnings("ignore")
def test_openrlhfs_own_executor_loads_and_calls_the_file(url: str, tmp_path: Path) -> None:
    agent = pytest.importorskip("openrlhf.utils.agent", reason="OpenRLHF is not installed")
    file = tmp_path / "reward_func.py"
    file.write_text(
        "from steerward.clients.openrlhf import reward_function\n"
        f"reward_func = reward_function({url!r}, api_key={KEY!r}, template='chatml')\n"
    )
    fetch = agent.SingleTurnAgentExecutor(str(file))._fetch_rewards_via_func
    (found,) = asyncio.run(fetch([f"{CHATML}Fine.<|im_end|>"], [CHATML], [""]))
    reward_func = reward_function(url, api_key=KEY, template="chatml")
    assert found == reward_func([f"{CHATML}Fine."], [CHATML], [""])


def test_template_is_recognised_as_by_the_server(url: str) -> None:
    query = f"{CHATML}Fine.<|im_end|>"
    expected = reward_function(url, api_key=KEY, template="chatml")([query], [CHATML], [""])
    found = reward_function(url, api_key=KEY)([query], [CHATML], [""])
    assert found["rewards"] == pytest.approx(expected["rewards"], abs=1e-4)
    body = {"query": [query], "prompts": [CHATML]}
    headers = {"authorization": f"Bearer {KEY}"}
    by_url = httpx.post(f"{url}/get_reward", json=body, headers=headers).json()
    assert by_url["rewards"] == pytest.approx(expected["rewards"], abs=1e-4)


def test_what_cannot_be_taken_apart_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="does not begin with a turn in Gemma markup"):
        reward_function(url, template="gemma")([f"{CHATML}Fine."], [CHATML], [""])
    with pytest.raises(InvalidRequest, match="does not begin with its prompt") as refused:
        reward_function(url)(["Fine."], ["Hello?"], [""])
    assert refused.value.param == "queries[0]"
    with pytest.raises(InvalidRequest, match="OpenRLHF takes no None"):
        reward_function(url, on_error="none")
