"""Samples in the formats of other trainers: winners, not losers, and with their direction."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from steerward.jobs.rsf.export import dpo_pairs, result_rows, samples_of, sft_rows
from steerward.jobs.rsf.samples import SampleRow
from steerward.protocol.conditioning import DPA_V1
from steerward.protocol.errors import DatasetRefused
from tests.jobs.rsf.test_samples import a_row

AHEAD, BRIEF = {"helpfulness": 1.0, "verbosity": 0.0}, {"helpfulness": 0.8, "verbosity": -0.6}
SYSTEM = "Be kind."


def a_sample(text: str, score: float, **fields: Any) -> SampleRow:
    """Return a sample of the first direction, which did not win."""
    row = {"direction_index": 0, "direction": AHEAD, "pool_scores": {0: score}}
    return a_row(completion=text, **{**row, "reason": "not_best", **fields})


def best(text: str, score: float, **fields: Any) -> SampleRow:
    return a_sample(text, score, reason="best", **{"selected_for": (0,), **fields})


def words(direction: dict[str, float]) -> str:
    weights = {name: round(100 * value) for name, value in direction.items()}
    return f"helpfulness*{weights['helpfulness']} + verbosity*{weights['verbosity']}"


def test_winners_are_learned_with_their_direction_in_front() -> None:
    """RAFT's public script lost the winners and gave them the user's role."""
    rows = [a_sample("worse", 0.0), best("good", 1.0), a_sample("cut", 9.0, reason="unfinished")]
    (example,) = sft_rows(rows, DPA_V1)
    system, user, answer = example["messages"]
    assert system["role"] == "system"
    assert system["content"].endswith(words(AHEAD))
    assert user == rows[0].prompt[0]
    assert answer == {"role": "assistant", "content": "good"}


def test_the_direction_comes_before_the_conversations_own_system_turn() -> None:
    prompt = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "Hi"})
    (example,) = sft_rows([best("good", 1.0, prompt=prompt)], DPA_V1)
    assert [turn["role"] for turn in example["messages"]] == ["system", "user", "assistant"]
    assert example["messages"][0]["content"].endswith(f"{words(AHEAD)}\n\n{SYSTEM}")


def test_a_winner_under_two_directions_is_learned_under_both() -> None:
    rows = [
        best("good", 1.0, selected_for=(0, 1), pool_scores={0: 1.0, 1: 2.0}),
        a_sample("worse", 0.0, direction_index=1, direction=BRIEF, pool_scores={0: 0.0, 1: 0.0}),
    ]
    examples = list(sft_rows(rows, DPA_V1))
    assert [one["messages"][-1]["content"] for one in examples] == ["good", "good"]
    assert examples[0]["messages"][0]["content"].endswith(words(AHEAD))
    assert examples[1]["messages"][0]["content"].endswith(words(BRIEF))


def test_a_direction_without_any_sample_is_refused() -> None:
    with pytest.raises(DatasetRefused, match="a winner for direction 5"):
        list(sft_rows([best("good", 1.0, selected_for=(5,))], DPA_V1))


def test_pairs_are_of_the_winner_and_the_worst_that_competed() -> None:
    rows = [
        a_sample("bad", -1.0),
        a_sample("middling", 0.0),
        best("good", 1.0),
        a_sample("cut", -9.0, reason="unfinished"),
        a_sample("bad ", -1.0, reason="duplicate"),
        a_sample("elsewhere", -5.0, direction_index=1, pool_scores={1: -5.0}),
        best("better", 2.0, number=4),
        a_sample("of another prompt", -7.0, number=4),
    ]
    first, second = dpo_pairs(rows, DPA_V1)
    assert set(first) == {"prompt", "chosen", "rejected"}
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"]
    assert first["prompt"][0]["content"].endswith(words(AHEAD))
    assert first["chosen"] == [{"role": "assistant", "content": "good"}]
    assert first["rejected"] == [{"role": "assistant", "content": "bad"}]
    assert second["chosen"][0]["content"] == "better"
    assert second["rejected"][0]["content"] == "of another prompt"


def test_each_direction_of_a_prompts_pool_has_its_own_pair() -> None:
    scores = {"a": {0: 1.0, 1: -1.0}, "b": {0: -1.0, 1: 1.0}}
    rows = [
        best("a", 0.0, pool_scores=scores["a"]),
        best("b", 0.0, pool_scores=scores["b"], selected_for=(1,), direction_index=1),
    ]
    pairs = list(dpo_pairs(rows, DPA_V1))
    assert [one["chosen"][0]["content"] for one in pairs] == ["a", "b"]
    assert [one["rejected"][0]["content"] for one in pairs] == ["b", "a"]


def test_without_anything_worse_there_is_no_pair() -> None:
    assert list(dpo_pairs([best("good", 1.0)], DPA_V1)) == []
    assert list(dpo_pairs([best("good", 1.0), best("as good", 1.0)], DPA_V1)) == []
    assert list(dpo_pairs([a_sample("worse", 0.0), a_sample("bad", -1.0)], DPA_V1)) == []


def test_results_are_all_samples_with_where_they_came_from() -> None:
    row = best("good", 1.0)
    cut = a_row(completion="cut", reason="unfinished", score=None)
    found, other = result_rows([row, cut])
    assert json.loads(json.dumps(found)) == {
        "number": row.number,
        "prompt": [dict(row.prompt[0])],
        "direction": AHEAD,
        "direction_index": 0,
        "completion": "good",
        "tokens": row.tokens,
        "is_finished": True,
        "selected": True,
        "selected_for": [0],
        "reason": "best",
        "pool_scores": {"0": 1.0},
        "rewards": {"helpfulness": 0.7, "verbosity": 0.1},
        "score": 0.5,
        "direction_score": 0.62,
        "lineage": {
            "job_id": row.job_id,
            "iteration": 2,
            "policy_weight_version": "p1",
            "reward_model": "pocket",
            "reward_weight_version": "r1",
            "prompt_row": row.prompt_row,
            "seed": 2**31 - 1,
            "sample": 4,
        },
    }
    assert (other["selected"], other["reason"], other["score"]) == (False, "unfinished", None)


def test_samples_are_read_back_from_results_as_they_were() -> None:
    unscored = dataclasses.replace(a_sample("worse", 0.0, tokens=None), score=None)
    rows = [best("good", 1.0), unscored]
    lines = [json.dumps(row) for row in result_rows(rows)]
    assert list(samples_of(lines)) == rows
    assert len(list(dpo_pairs(samples_of(lines), DPA_V1))) == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": []}'])
def test_a_line_that_is_no_result_is_named(line: str) -> None:
    good = json.dumps(next(result_rows([best("good", 1.0)])))
    with pytest.raises(DatasetRefused, match="line 2 is no sample"):
        list(samples_of([good, line]))
