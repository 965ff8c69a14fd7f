"""What pocket-policy learns of samples behind two directions: what these disagree about."""

from __future__ import annotations

from recipes.pocket_policy.contrasted import ROWS_PER_PROMPT, draw_contrasts
from recipes.pocket_policy.rule import ANGLES_DEG, RULE
from steerward.jobs.rsf.samples import SampleRow
from steerward.training.align.mapl.rows import InterRow
from steerward.training.align.rows import PairRow

# By text, what the reward model says of it.
REWARDS = {
    "short and right": (1.0, -1.0),
    "long and right": (1.1, 1.0),
    "short and wrong": (-1.0, -1.1),
    "long and wrong": (-1.2, 1.2),
}
ANGLES = {RULE.condition(RULE.at_angle(angle)).system: angle for angle in ANGLES_DEG}


def _sample(text: str, *, number: int, reason: str = "not_best") -> SampleRow:
    return SampleRow(
        job_id="job",
        iteration=1,
        number=number,
        prompt_row=number,
        direction_index=0,
        direction={"helpfulness": 1.0, "verbosity": 0.0},
        sample=0,
        sample_seed=0,
        prompt=({"role": "user", "content": f"Question {number}"},),
        completion=text,
        tokens=3,
        is_finished=True,
        rewards=dict(zip(RULE.objectives, REWARDS.get(text, (9.0, 9.0)), strict=True)),
        score=None,
        direction_score=0.0,
        policy_weight_version="a",
        reward_model="pocket",
        reward_weight_version="b",
        reason=reason,
    )


def _angle(prompt: tuple[object, ...]) -> float:
    system = prompt[0]
    assert isinstance(system, dict)
    return ANGLES[system["content"]]


def test_more_verbosity_in_the_direction_is_told_apart_by_length_alone() -> None:
    samples = [_sample(text, number=number) for number in range(30) for text in REWARDS]
    rows = [row for row in draw_contrasts(samples, seed=0) if isinstance(row, InterRow)]
    assert len(rows) == 30 * ROWS_PER_PROMPT
    apart = [_angle(row.prompt_with) - _angle(row.prompt) for row in rows]
    assert all(15.0 <= abs(angle) <= 40.0 for angle in apart)
    assert 0.3 < sum(angle > 0 for angle in apart) / len(apart) < 0.7
    for row, angle in zip(rows, apart, strict=True):
        assert row.direction == 1
        more, less = ("long", "short") if angle > 0 else ("short", "long")
        assert row.chosen.startswith(more)
        assert row.rejected.startswith(less)


def test_pairs_are_the_best_and_the_worst_under_their_direction() -> None:
    samples = [_sample(text, number=number) for number in range(30) for text in REWARDS]
    rows = [row for row in draw_contrasts(samples, seed=0) if isinstance(row, PairRow)]
    assert len(rows) == 30 * ROWS_PER_PROMPT
    for row in rows:
        if (angle := _angle(row.messages)) < -5:
            assert (row.chosen, row.rejected) == ("short and right", "long and wrong")
        elif angle > 5:
            assert (row.chosen, row.rejected) == ("long and right", "short and wrong")


def test_samples_that_did_not_compete_and_equal_ones_give_no_rows() -> None:
    cut = [_sample("cut off", number=0, reason="unfinished"), _sample("long and right", number=0)]
    equal = [_sample("long and right", number=1) for _ in range(3)]
    assert list(draw_contrasts([*cut, *equal], seed=0)) == []
