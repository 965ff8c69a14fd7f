"""TRL's own trainers with our reward functions, against a real server on a real port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from steerward.clients import Client
from steerward.clients.trl import reward_funcs
from steerward.protocol.errors import InputTooLong, InvalidRequest, UnknownObjective
from tests.contract.conftest import KEY, Served
from tests.contract.training import trainer_of
from tests.other_process import awaited, in_another_process

pytestmark = pytest.mark.contract

OBJECTIVES = [f"objective_{i}" for i in range(19)]
HELLO = [{"role": "user", "content": "Hello, how are you?"}]
RAINBOWS = "Tell me about rainbows."
TWO_STEPS: dict[str, Any] = {"max_steps": 2, "max_completion_length": 4}


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, api_key=KEY) as found:
        yield found


def num_requests(served: Served) -> float:
    labels = {"route": "/v1/score", "status": "200"}
    return served.metrics.registry.get_sample_value("steerward_requests_total", labels) or 0.0


@pytest.mark.parametrize("asynchronous", [False, True], ids=["blocking", "asynchronous"])
def test_grpo_logs_every_objective_of_one_request_a_batch(
    served: Served, url: str, client: Client, tmp_path: Path, asynchronous: bool
) -> None:
    gates = client.score(HELLO, ["Fine."], explain=True).items[0].gates
    assert gates is not None
    functions = reward_funcs(url, api_key=KEY, asynchronous=asynchronous)
    columns = {"prompt": [HELLO] * 4, "source": ["a"] * 4}
    trainer = trainer_of(
        GRPOTrainer, partial(GRPOConfig, **TWO_STEPS), tmp_path, functions, columns
    )
    before = num_requests(served)
    trainer.train()
    assert num_requests(served) == before + 2
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(steps) == 2
    for entry in steps:
        columns = [entry[f"rewards/steerward_{name}/mean"] for name in OBJECTIVES]
        total = entry["rewards/steerward_score/mean"] + sum(columns)
        assert entry["reward"] == pytest.approx(total, abs=1e-4)
        logged = {name: entry[f"steerward_gate/{name}"] for name in OBJECTIVES}
        assert logged == pytest.approx(gates, abs=1e-4)


def test_rloo_trains_on_plain_text(served: Served, url: str, tmp_path: Path) -> None:
    functions = reward_funcs(url, api_key=KEY, objectives=["objective_3"])
    columns = {"prompt": [RAINBOWS] * 4, "source": ["a"] * 4}
    trainer = trainer_of(
        RLOOTrainer, partial(RLOOConfig, **TWO_STEPS), tmp_path, functions, columns
    )
    before = num_requests(served)
    trainer.train()
    assert num_requests(served) == before + 2
    assert "rewards/steerward_objective_3/mean" in trainer.state.log_history[0]


def batch() -> dict[str, Any]:
    """What TRL passes: conversations, two of one prompt apart from each other."""
    other = [{"role": "user", "content": RAINBOWS}]
    answers = ["Fine.", "Light splits.", "I am well, thank you.", "No."]
    return {
        "prompts": [HELLO, other, HELLO, other],
        "completions": [[{"role": "assistant", "content": text}] for text in answers],
        "completion_ids": [[1]] * 4,
        "source": ["a"] * 4,
        "trainer_state": None,
    }


def test_values_are_those_of_the_scoring_route(url: str, client: Client) -> None:
    columns = {f.__name__: f(**batch()) for f in reward_funcs(url, api_key=KEY)}
    assert list(columns) == ["steerward_score", *(f"steerward_{name}" for name in OBJECTIVES)]
    for prompt, rows, answers in [
        (HELLO, (0, 2), ["Fine.", "I am well, thank you."]),
        (RAINBOWS, (1, 3), ["Light splits.", "No."]),
    ]:
        (item,) = client.score(prompt, answers).items
        for row, candidate in zip(rows, item.candidates, strict=True):
            assert columns["steerward_score"][row] == pytest.approx(candidate.score, abs=1e-4)
            for name, reward in candidate.rewards.items():
                assert columns[f"steerward_{name}"][row] == pytest.approx(reward, abs=1e-4)


def test_the_same_batch_in_another_step_is_scored_again(served: Served, url: str) -> None:
    functions = reward_funcs(url, api_key=KEY, objectives=["objective_0"])
    before = num_requests(served)
    for _ in range(3):
        for function in functions:
            function(**batch())
    assert num_requests(served) == before + 3


def test_direction_and_weights_give_the_score(url: str, client: Client) -> None:
    direction, weights = {"objective_0": 1.0, "objective_1": -1.0}, {"objective_2": 2.0}
    (by_direction,) = reward_funcs(url, api_key=KEY, objectives=[], direction=direction)
    (by_weights,) = reward_funcs(url, api_key=KEY, objectives=[], weights=weights)
    item = client.score(HELLO, ["Fine."], direction=direction, weights=weights).items[0]
    assert by_direction(**batch())[0] == pytest.approx(item.candidates[0].direction_score, abs=1e-4)
    assert by_weights(**batch())[0] == pytest.approx(item.candidates[0].weighted_score, abs=1e-4)


def test_functions_can_be_sent_to_another_process(served: Served, url: str) -> None:
    functions = reward_funcs(url, api_key=KEY, objectives=["objective_0"], asynchronous=True)
    before = num_requests(served)
    columns = in_another_process(awaited, functions, batch())
    assert num_requests(served) == before + 1
    assert columns["steerward_objective_0"] == asyncio.run(functions[1](**batch()))


def test_sample_that_cannot_be_scored_is_none_only_if_wished(url: str) -> None:
    broken = batch()
    broken["completions"][1] = [{"role": "assistant", "content": "rain " * 20_000}]
    whole = reward_funcs(url, api_key=KEY, objectives=[], on_error="none")[0]
    found = whole(**broken)
    assert found[1] is None
    assert all(isinstance(found[row], float) for row in (0, 2, 3))
    with pytest.raises(InputTooLong, match="limit 2,048"):
        reward_funcs(url, api_key=KEY, objectives=[])[0](**broken)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompts": [[*HELLO, {"role": "assistant", "content": "Well"}]] * 4}, "beginning of an"),
        (
            {"completions": [[{"role": "assistant", "content": "", "tool_calls": [{}]}]] * 4},
            "tools",
        ),
        ({"completions": [HELLO] * 4}, "one assistant turn"),
        ({"tools": [[{"name": "search"}]] * 4}, "column `tools`"),
    ],
    ids=["begun-answer", "tool-call", "no-answer", "tools"],
)
def test_what_is_not_text_alone_is_refused(url: str, change: Any, match: str) -> None:
    (function,) = reward_funcs(url, api_key=KEY, objectives=[])
    with pytest.raises(InvalidRequest, match=match):
        function(**{**batch(), **change})


def test_columns_that_cannot_be_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="no column is left"):
        reward_funcs(url, objectives=[], score=False)
    with pytest.raises(InvalidRequest, match="two columns"):
        reward_funcs(url, objectives=["one", "one"])
    (absent,) = reward_funcs(url, api_key=KEY, objectives=["absent"], score=False)
    with pytest.raises(UnknownObjective, match="objective_18"):
        absent(**batch())
