"""verl's calls, as its reward loop makes them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steerward.clients import Client
from steerward.clients.verl import (
    SteerwardRewardManager,
    compute_score,
    compute_score_async,
    compute_scores,
)
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

PROMPT = [{"role": "user", "content": "Hello, how are you?"}]
CALL: dict[str, Any] = {
    "data_source": "chat",
    "solution_str": "Fine.",
    "ground_truth": "",
    "extra_info": {"prompt": PROMPT, "num_turns": None},
}


@pytest.fixture
def settings(served: Served) -> dict[str, Any]:
    return {"url": served.url.removesuffix("/v1"), "api_key": KEY}


@pytest.fixture
def expected(settings: dict[str, Any]) -> dict[str, float]:
    with Client(settings["url"], api_key=KEY) as client:
        candidate = client.score(PROMPT, ["Fine."]).items[0].candidates[0]
    assert candidate.score is not None
    return {**candidate.rewards, "score": candidate.score}


def test_all_forms_return_the_score_and_all_objectives(
    settings: dict[str, Any], expected: dict[str, float]
) -> None:
    router = {"reward_router_address": "127.0.0.1:1", "reward_model_tokenizer": None}
    one = compute_score(**CALL, **settings, **router)
    awaited = asyncio.run(compute_score_async(**CALL, **settings, **router))
    batch = compute_scores(
        ["chat"] * 2, ["Fine.", ""], ["", ""], [CALL["extra_info"]] * 2, **settings
    )
    assert one == pytest.approx(expected, abs=1e-4)
    assert awaited == pytest.approx(expected, abs=1e-4)
    assert batch[0] == pytest.approx(expected, abs=1e-4)
    assert list(batch[0]) == list(batch[1]) == list(one)


def test_missing_prompt_says_where_to_put_it(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"extra_info\['prompt'\]"):
        compute_score(**{**CALL, "extra_info": {}}, **settings)
    with pytest.raises(InvalidRequest, match="takes no None"):
        compute_score(**CALL, **settings, on_error="none")


class Config(dict[str, Any]):
    """As OmegaConf's: values by attribute too."""

    __getattr__ = dict.__getitem__


class Letters:
    """A tokenizer whose ids are code points."""

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids.tolist()))


def sample(prompt: Any) -> list[Any]:
    """One right-padded response behind a left-padded prompt, as verl's DataProto indexes it."""
    responses = torch.tensor([*map(ord, "Fine."), 0, 0])
    batch = {"responses": responses, "attention_mask": torch.tensor([0, 1, 1, *[1] * 5, 0, 0])}
    return [SimpleNamespace(batch=batch, non_tensor_batch={"raw_prompt": prompt})]


def test_manager_reads_the_prompt_that_verl_keeps(
    settings: dict[str, Any], expected: dict[str, float]
) -> None:
    config = Config(reward=Config(custom_reward_function=Config(reward_kwargs=Config(settings))))
    manager = SteerwardRewardManager(config, Letters(), None, reward_router_address=None)
    answer = asyncio.run(manager.run_single(sample(PROMPT)))
    assert answer["reward_score"] == pytest.approx(expected["score"], abs=1e-4)
    assert answer["reward_extra_info"] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InvalidRequest, match="raw_prompt"):
        asyncio.run(manager.run_single(sample(None)))


def test_tokens_of_tools_are_not_scored_as_the_policys(
    settings: dict[str, Any], expected: dict[str, float]
) -> None:
    config = Config(reward=Config(custom_reward_function=Config(reward_kwargs=Config(settings))))
    manager = SteerwardRewardManager(config, Letters())
    (item,) = sample(PROMPT)
    item.batch["response_mask"] = torch.tensor([1, 1, 1, 1, 1, 0, 0])  # Zeros of padding alone.
    answer = asyncio.run(manager.run_single([item]))
    assert answer["reward_score"] == pytest.approx(expected["score"], abs=1e-4)
    item.batch["response_mask"] = torch.tensor([1, 0, 0, 1, 1, 0, 0])
    with pytest.raises(InvalidRequest, match="0 for 2 of 5 tokens") as caught:
        asyncio.run(manager.run_single([item]))
    assert caught.value.param == "response_mask"


@pytest.mark.filterwarnings("ignore")
def test_verls_own_loader_finds_function_and_manager(
    settings: dict[str, Any], expected: dict[str, float]
) -> None:
    reward = pytest.importorskip("verl.trainer.ppo.reward", reason="verl is not installed")
    module = "pkg://steerward.clients.verl"
    custom = Config(path=module, name="compute_score_async", reward_kwargs=Config(settings))
    chosen = Config(source="importlib", name="SteerwardRewardManager", module=Config(path=module))
    config = Config(reward=Config(custom_reward_function=custom, reward_manager=chosen))
    assert reward.resolve_reward_manager_cls(config) is SteerwardRewardManager
    function = reward.get_custom_reward_fn(config)
    assert asyncio.run(function(**CALL)) == pytest.approx(expected, abs=1e-4)
    manager = reward.load_reward_manager(config, Letters())
    answer = asyncio.run(manager.run_single(sample(PROMPT)))
    assert answer["reward_score"] == pytest.approx(expected["score"], abs=1e-4)


def test_scores_are_put_at_the_last_token() -> None:
    batch = {
        "prompts": torch.zeros(2, 2),
        "responses": torch.zeros(2, 3, dtype=torch.long),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
    }
    found = SteerwardRewardManager.assemble_rm_scores(SimpleNamespace(batch=batch), [0.5, -1.0])
    assert found.tolist() == [[0.0, 0.5, 0.0], [0.0, 0.0, -1.0]]
