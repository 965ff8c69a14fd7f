"""From samples of an iteration to what became of them, and to what is learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steerward.jobs.rsf.samples import SampleRow
from steerward.jobs.rsf.selecting import (
    check_one_origin,
    mean_rewards,
    select_samples,
    write_training_set,
)
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidRequest
from tests.jobs.rsf.playing import RULE, settings
from tests.jobs.rsf.test_samples import a_row

DIRECTIONS = [
    PreferenceDirection({"helpfulness": 1.0, "verbosity": 0.0}),
    PreferenceDirection({"helpfulness": 0.8, "verbosity": 0.6}),
]
VECTORS = [RULE.reward_direction(one).components for one in DIRECTIONS]
TALKS = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]]


def sample(number: int, text: str, help_: float, **fields: Any) -> SampleRow:
    rewards = {"help": help_, "length": 0.0}
    row = {"number": number, "direction_index": 0, "completion": text, "rewards": rewards}
    return a_row(**{**row, "tokens": 5, **fields})


def chosen(rows: Sequence[SampleRow], **changes: Any) -> list[SampleRow]:
    return select_samples(rows, VECTORS, None, settings(reward_scale="raw", **changes))


def test_the_best_of_each_prompt_is_selected_and_the_rest_say_why_not() -> None:
    rows = [
        sample(0, "bad one", 0.1),
        sample(0, "good one", 0.9),
        sample(0, "cut one", 2.0, is_finished=False),
        sample(1, "only one here", 0.5),
        sample(1, "another one", 0.4),
    ]
    found = chosen(rows)
    assert [row.completion for row in found] == [row.completion for row in rows]
    assert [row.selected_for for row in found] == [(), (0,), (), (0,), ()]
    assert [found[0].reason, found[1].reason] == ["not_best", "best"]
    assert found[2].reason not in ("best", "not_best")
    assert found[1].pool_scores == {0: pytest.approx(0.9)}


def test_a_quota_drops_those_least_above_their_pool() -> None:
    rows = [
        *(sample(0, "bad one", 0.1), sample(0, "good one", 0.9)),
        *(sample(1, "worse one", 0.1), sample(1, "better one", 0.2)),
    ]
    found = chosen(rows, max_per_direction=1)
    assert [row.reason for row in found] == ["not_best", "best", "not_best", "over_quota"]
    assert [row.selected for row in found] == [False, True, False, False]


def write(path: Path, rows: Sequence[SampleRow], **changes: Any) -> list[Any]:
    options: dict[str, Any] = {"sft": [], "sft_share": 0.0, "seed": "1/1", **changes}
    write_training_set(path, rows, rule=RULE, directions=DIRECTIONS, **options)
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def test_winners_are_written_out_with_their_direction(tmp_path: Path) -> None:
    """RAFT's public script wrote the prompts and lost the winners."""
    rows = [
        sample(0, "good one", 0.9, selected_for=(0, 1), reason="best"),
        sample(0, "bad one", 0.1, reason="not_best"),
    ]
    found = write(tmp_path / "set.jsonl", rows)
    assert [turns[-1] for turns in found] == [{"role": "assistant", "content": "good one"}] * 2
    systems = {turns[0]["content"] for turns in found}
    assert systems == {RULE.condition(one).system for one in DIRECTIONS}


def test_other_conversations_are_mixed_in_by_their_share(tmp_path: Path) -> None:
    rows = [sample(i, f"text {i}", 0.9, selected_for=(0,), reason="best") for i in range(30)]
    found = write(tmp_path / "one.jsonl", rows, sft=TALKS, sft_share=0.25)
    assert len(found) == 40
    assert sum(turns == TALKS[0] for turns in found) == 10
    assert write(tmp_path / "two.jsonl", rows, sft=TALKS, sft_share=0.25) == found
    assert write(tmp_path / "three.jsonl", rows, sft=TALKS, sft_share=0.25, seed="2/1") != found


def test_nothing_to_learn_from_is_an_error_with_counts(tmp_path: Path) -> None:
    rows = [sample(0, "a", 0.1, reason="unfinished"), sample(1, "b", 0.1, reason="unfinished")]
    with pytest.raises(InvalidRequest, match="no completion was selected: 2 unfinished"):
        write(tmp_path / "set.jsonl", rows)
    with pytest.raises(InvalidRequest, match="no prompt could be sampled"):
        write(tmp_path / "set.jsonl", [])
    assert not [*tmp_path.iterdir()]


def test_samples_scored_by_two_reward_models_are_not_compared() -> None:
    rows = [sample(0, "a", 0.1), sample(1, "b", 0.1, reward_weight_version="r2")]
    check_one_origin(rows[:1])
    check_one_origin([])
    with pytest.raises(InvalidRequest, match="scored by different reward models, versions r1, r2"):
        check_one_origin(rows)


def test_mean_rewards_are_by_name() -> None:
    rows = [sample(0, "a", 0.1), sample(0, "b", 0.3)]
    assert mean_rewards(rows, ["help"]) == {"help": pytest.approx(0.2)}
    assert mean_rewards([], ["help"]) == {}
