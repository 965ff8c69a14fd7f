"""What an iteration draws: the same for the same seed, and nothing twice before all came once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.rsf.draw import Pick, bits, draw, hold_out, uniforms
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import RsfSettings

GOLDEN_PICKS = [
    Pick(number=0, prompt=5, directions=(2, 0), seed=1176160134),
    Pick(number=1, prompt=3, directions=(1, 2), seed=230656324),
    Pick(number=2, prompt=4, directions=(0, 1), seed=445552109),
    Pick(number=3, prompt=1, directions=(2, 0), seed=1343765089),
]
GOLDEN_HELD_OUT = [1, 5]
GOLDEN_UNIFORMS = [0.3859060784798377, 0.020980067296050064]


def settings(**fields: object) -> RsfSettings:
    return RsfSettings.model_validate(fields)


def prompts(num_prompts: int, count: int, *, iterations: int, seed: int = 0) -> list[list[int]]:
    given_settings = settings(prompts_per_iteration=count)
    return [
        [pick.prompt for pick in draw(num_prompts, given_settings, 3, iteration=i, seed=seed)]
        for i in range(1, iterations + 1)
    ]


def test_streams_are_those_of_earlier_versions() -> None:
    """A job that goes on under a later version must draw what it would have drawn."""
    wanted = settings(prompts_per_iteration=4, directions_per_prompt=2)
    assert draw(6, wanted, 3, iteration=2, seed=7) == GOLDEN_PICKS
    assert hold_out(range(20), 5, 7)[1] == GOLDEN_HELD_OUT
    assert uniforms(bits("directions", 7, 1), 2).tolist() == GOLDEN_UNIFORMS


@given(
    num_prompts=st.integers(1, 30),
    count=st.integers(1, 40),
    iteration=st.integers(1, 6),
    seed=st.integers(-5, 5),
)
def test_prompts_of_an_iteration_differ_while_there_are_enough(
    num_prompts: int, count: int, iteration: int, seed: int
) -> None:
    (*_, drawn) = prompts(num_prompts, count, iterations=iteration, seed=seed)
    assert len(drawn) == count
    assert set(drawn) <= set(range(num_prompts))
    if count <= num_prompts:
        assert len(set(drawn)) == count
    else:
        counts = Counter(drawn)
        assert max(counts.values()) <= -(-count // num_prompts) + 1


@given(num_prompts=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_all_prompts_come_once_before_any_comes_again(
    num_prompts: int, count: int, seed: int
) -> None:
    drawn = [p for one in prompts(num_prompts, count, iterations=6, seed=seed) for p in one]
    for begin in range(0, len(drawn) - num_prompts + 1, num_prompts):
        assert sorted(drawn[begin : begin + num_prompts]) == list(range(num_prompts))


def test_iterations_do_not_depend_on_each_other() -> None:
    wanted = settings(prompts_per_iteration=7)
    alone = draw(10, wanted, 3, iteration=4, seed=1)
    for iteration in (1, 2, 3):
        draw(10, wanted, 3, iteration=iteration, seed=1)
    assert draw(10, wanted, 3, iteration=4, seed=1) == alone


def test_seeds_and_iterations_draw_differently() -> None:
    first, second = prompts(50, 50, iterations=2)
    assert first != second
    assert prompts(50, 50, iterations=1, seed=1) != [first]


@given(
    num_directions=st.integers(1, 9),
    each=st.integers(1, 9),
    count=st.integers(1, 30),
    iteration=st.integers(1, 5),
)
def test_directions_take_turns(num_directions: int, each: int, count: int, iteration: int) -> None:
    each = min(each, num_directions)
    wanted = settings(prompts_per_iteration=count, directions_per_prompt=each)
    picks = draw(5, wanted, num_directions, iteration=iteration, seed=0)
    counts = Counter(index for pick in picks for index in pick.directions)
    numbers = [counts[index] for index in range(num_directions)]
    assert max(numbers) - min(numbers) <= 1
    assert all(len(set(pick.directions)) == each for pick in picks)


def test_each_prompt_has_a_sampling_seed_of_its_own() -> None:
    wanted = settings(prompts_per_iteration=200)
    seeds = [pick.seed for i in (1, 2) for pick in draw(10, wanted, 2, iteration=i, seed=0)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_more_directions_for_a_prompt_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is 3, and there are 2 directions") as caught:
        draw(5, settings(directions_per_prompt=3), 2, iteration=1, seed=0)
    assert caught.value.param == "method.rsf.directions_per_prompt"


def test_no_prompts_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no prompts") as caught:
        draw(0, settings(), 2, iteration=1, seed=0)
    assert caught.value.param == "training_file"


@given(num_rows=st.integers(0, 200), wanted=st.integers(0, 50), seed=st.integers(-3, 3))
def test_at_most_a_tenth_is_held_out(num_rows: int, wanted: int, seed: int) -> None:
    training, evaluation = hold_out(range(num_rows), wanted, seed)
    assert len(evaluation) == min(wanted, num_rows // 10)
    assert sorted(training + evaluation) == list(range(num_rows))
    assert training == sorted(training)
    assert evaluation == sorted(evaluation)


@given(
    prompts=st.lists(st.integers(0, 40), max_size=200),
    wanted=st.integers(0, 20),
    seed=st.integers(0, 3),
)
def test_no_prompt_is_both_trained_and_measured_on(
    prompts: list[int], wanted: int, seed: int
) -> None:
    training, evaluation = hold_out(prompts, wanted, seed)
    measured = [prompts[row] for row in evaluation]
    assert len(set(measured)) == len(measured) <= wanted
    assert not {prompts[row] for row in training} & set(measured)
    assert len(prompts) - len(training) <= len(prompts) // 10


def test_duplicates_of_a_prompt_that_is_held_out_are_held_out_too() -> None:
    training, (row,) = hold_out([number // 2 for number in range(40)], 1, 0)
    assert len(training) == 38
    assert not {row // 2 * 2, row // 2 * 2 + 1} & set(training)
