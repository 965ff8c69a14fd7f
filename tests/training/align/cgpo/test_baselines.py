"""Baselines: of a column or of the reference policy, the same again, scored and judged once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.cgpo.baselines import (
    add_baselines,
    generated_baselines,
    gold_baselines,
)
from steerward.training.align.cgpo.tasks import Task
from tests.training.align.cgpo.runs import PROMPTS, Reward, Rule, policy_of, reward_of

CHATS = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


def test_gold_answers_are_texts_or_last_turns() -> None:
    chats = [[*CHATS[0], {"role": "assistant", "content": "Fine."}]]
    rows = Dataset.from_dict({"gold": ["Fine."], "messages": chats, "blank": [" "]})
    assert gold_baselines(rows, column="gold") == ["Fine."]
    assert gold_baselines(rows, column="messages") == ["Fine."]
    with pytest.raises(DatasetRefused, match="row 0 has no text"):
        gold_baselines(rows, column="blank")
    with pytest.raises(DatasetRefused, match="no column 'answer'"):
        gold_baselines(rows, column="answer")


def test_generated_answers_are_the_same_with_the_same_seed(tmp_path: Path) -> None:
    model, tokenizer = policy_of(tmp_path)
    path = tmp_path / "baselines.json"

    def texts(seed: int, **more: Any) -> list[str]:
        return generated_baselines(
            model, tokenizer, [*CHATS, *PROMPTS], seed=seed, max_tokens=6, **more
        )

    kept = texts(1, path=path)
    assert kept == texts(1) != texts(2)
    assert len(kept) == 8
    assert all(text.strip() for text in kept)
    # From the file, so the model is not asked.
    model.generate = None
    assert texts(1, path=path) == kept
    with pytest.raises(DatasetRefused, match="baselines of other seed"):
        texts(2, path=path)


async def kindness(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    assert all(turns[0]["role"] == "assistant" for turns in completions)
    return [0.25] * len(prompts)


def test_baselines_are_scored_by_their_task_and_judged() -> None:
    rows = Dataset.from_dict({"prompt": PROMPTS[:3], "task": ["a", "a", "b"]})
    tasks = [Task("a", "letters", Rule(lambda text: len(text) < 4)), Task("b", "letters")]
    found = add_baselines(rows, ["yes", "much longer", "z"], tasks=tasks, reward_funcs=[Reward()])
    assert found["baseline"][:] == ["yes", "much longer", "z"]
    assert found["baseline_reward"][:] == pytest.approx(
        [reward_of(text) for text in found["baseline"]]
    )
    assert found["baseline_satisfied"][:] == [True, False, True]
    again = add_baselines(found, ["a", "b", "c"], tasks=tasks, reward_funcs=[Reward()])
    assert again["baseline"][:] == ["a", "b", "c"]


def test_chats_and_async_rewards_are_scored_as_in_training() -> None:
    rows = Dataset.from_dict({"prompt": CHATS[:2], "task": ["a", "a"]})
    found = add_baselines(
        rows, ["yes", "no"], tasks=[Task("a", "kindness")], reward_funcs=[kindness]
    )
    assert found["baseline_reward"][:] == [0.25, 0.25]


def test_what_cannot_be_scored_is_refused() -> None:
    rows = Dataset.from_dict({"prompt": PROMPTS[:1], "task": ["a"]})

    def missing(prompts: list[str], **_: Any) -> list[None]:
        return [None] * len(prompts)

    with pytest.raises(DatasetRefused, match="row 0 has missing None"):
        add_baselines(rows, ["x"], tasks=[Task("a", "missing")], reward_funcs=[missing])
    with pytest.raises(InvalidRequest, match="reward 'wit'"):
        add_baselines(rows, ["x"], tasks=[Task("a", "wit")], reward_funcs=[missing])
    with pytest.raises(DatasetRefused, match="1 rows and 2 baselines"):
        add_baselines(rows, ["x", "y"], tasks=[Task("a", "wit")], reward_funcs=[missing])
