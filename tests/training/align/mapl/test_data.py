"""The rows that MAPL is trained on: confirmed by the checkers, both ends, distinct, repeatable."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest

from steerward.instructions import KINDS, conflicts, draw
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.data import (
    BUILT,
    UNDRAWN,
    BuiltRows,
    TooFewRows,
    build_rows,
    split_kinds,
)
from steerward.training.align.mapl.rows import InterRow, IntraRow, is_followed_better
from steerward.training.align.rows import PairRow

_WORDS = [
    *("the", "river", "runs", "under", "a", "bright", "table,", "and", "seven", "green"),
    *("walkers", "sing.", "Why?", "Well:", "rain!"),
]


def _response(order: random.Random) -> str:
    words = order.choices(_WORDS, k=order.randint(5, 40))
    return " ".join(words).capitalize() + order.choice([".", "!", "?", "\n\n* one\n* two"])


@pytest.fixture(scope="module")
def pairs() -> list[PairRow]:
    order = random.Random(0)
    return [
        PairRow(
            ({"role": "user", "content": f"Question {i}?"},), _response(order), _response(order), {}
        )
        for i in range(40)
    ]


@pytest.fixture(scope="module")
def built(pairs: list[PairRow]) -> BuiltRows:
    return build_rows(pairs, seed=3)


def _kinds(row: IntraRow | InterRow) -> list[list[str]]:
    sides = (
        [row.instructions_chosen, row.instructions_rejected]
        if isinstance(row, IntraRow)
        else [row.instructions]
    )
    return [[one.kind for one in side] for side in sides]


def test_checkers_confirm_every_intra_row(built: BuiltRows) -> None:
    assert len(built.intra) > 60
    for row in built.intra:
        met = [one.is_met(row.response) for one in row.instructions_chosen]
        others = [one.is_met(row.response) for one in row.instructions_rejected]
        assert (all(met) and not all(others)) or (any(met) and not any(others))
        for prompt, side in (
            (row.prompt_chosen, row.instructions_chosen),
            (row.prompt_rejected, row.instructions_rejected),
        ):
            assert all(one.text in prompt[-1]["content"] for one in side)


def test_checkers_confirm_every_inter_row(built: BuiltRows) -> None:
    assert len(built.inter) > 60
    for row in built.inter:
        meets, violates = row.chosen, row.rejected
        if row.direction == -1:
            meets, violates = violates, meets
        assert all(one.is_met(meets) for one in row.instructions)
        assert not any(one.is_met(violates) for one in row.instructions)
        assert all(one.text in row.prompt_with[-1]["content"] for one in row.instructions)


def test_both_rules_of_the_intra_rows_are_used(built: BuiltRows) -> None:
    rules = {
        (
            all(one.is_met(row.response) for one in row.instructions_chosen),
            any(one.is_met(row.response) for one in row.instructions_rejected),
        )
        for row in built.intra
    }
    assert rules >= {(True, True), (True, False), (False, False)}


def test_both_ends_of_a_pair_are_there(built: BuiltRows, pairs: list[PairRow]) -> None:
    ends = {(pair.chosen, pair.rejected) for pair in pairs}
    for first, second in zip(built.intra[::2], built.intra[1::2], strict=True):
        assert (first.response, second.response) in ends
    for first, second in zip(built.inter[::2], built.inter[1::2], strict=True):
        assert (first.direction, second.direction) == (1, -1)
        assert (first.chosen, first.rejected) == (second.chosen, second.rejected)


def test_functions_of_a_row_are_distinct_and_do_not_conflict(built: BuiltRows) -> None:
    for row in [*built.intra, *built.inter]:
        for kinds in _kinds(row):
            assert 2 <= len(kinds) == len(set(kinds)) <= 4
    for row in built.intra:
        assert len({tuple(side) for side in _kinds(row)}) == 1
        for side in (row.instructions_chosen, row.instructions_rejected):
            assert not any(conflicts(a, b) for a, b in combinations(side, 2))
    for row in built.inter:
        assert not any(conflicts(a, b) for a, b in combinations(row.instructions, 2))


def test_same_seed_gives_the_same_rows(built: BuiltRows, pairs: list[PairRow]) -> None:
    assert build_rows(pairs, seed=3) == built
    assert build_rows(pairs, seed=4).inter != built.inter


def test_rows_of_a_pair_do_not_depend_on_later_pairs(
    built: BuiltRows, pairs: list[PairRow]
) -> None:
    fewer = build_rows(pairs[:20], seed=3)
    assert fewer.intra == built.intra[: len(fewer.intra)]


def test_pair_that_is_there_twice_gives_rows_once(built: BuiltRows, pairs: list[PairRow]) -> None:
    twice = build_rows([*pairs, *pairs], seed=3)
    assert twice.intra == built.intra
    assert twice.left_out["the same pair twice"] == len(pairs)


def test_held_out_kinds_are_in_no_row(pairs: list[PairRow]) -> None:
    held_out = ["keywords:existence", "length_constraints:number_words", "punctuation:no_comma"]
    training, out = split_kinds(held_out)
    assert out == sorted(held_out)
    rows = build_rows(pairs, kinds=training)
    used = {kind for row in [*rows.intra, *rows.inter] for side in _kinds(row) for kind in side}
    assert used
    assert not used & set(held_out)
    assert set(training) | set(held_out) == set(KINDS)


def test_share_of_kinds_is_drawn_by_the_seed() -> None:
    training, out = split_kinds(share=0.25, seed=1)
    assert len(out) == round(0.25 * len(KINDS))
    assert not set(training) & set(out)
    assert split_kinds(share=0.25, seed=1) == (training, out)
    assert split_kinds(share=0.25, seed=2)[1] != out


def test_kinds_that_are_never_drawn_are_not_held_out_unless_they_are_named() -> None:
    for seed in range(20):
        training, out = split_kinds(share=0.25, seed=seed, never=UNDRAWN)
        assert len(out) == round(0.25 * len(KINDS))
        assert set(training) >= UNDRAWN
    assert split_kinds(UNDRAWN, never=UNDRAWN)[1] == sorted(UNDRAWN)


def test_no_instruction_of_these_kinds_is_ever_drawn(pairs: list[PairRow]) -> None:
    order = random.Random(0)
    for kind in UNDRAWN:
        for met in (True, False):
            assert not any(draw(kind, one.chosen, met=met, order=order) for one in pairs)


@pytest.mark.parametrize("part", BUILT)
def test_one_part_is_built_without_the_other(
    built: BuiltRows, pairs: list[PairRow], part: str
) -> None:
    """A part that does not count was refused for too few rows of it."""
    alone = build_rows(pairs, seed=3, parts=[part])
    other = next(name for name in BUILT if name != part)
    assert getattr(alone, part) == getattr(built, part)
    assert getattr(alone, other) == []
    assert build_rows(pairs, seed=3, parts=[]) == BuiltRows([], [], {})


def test_a_part_that_is_not_built_may_have_too_few_rows() -> None:
    turns = ({"role": "user", "content": "Question"},)
    # One meets what the other meets: nothing parts them, and intra rows need no other response.
    pairs = [PairRow(turns, f"a {word}", f"b {word}", {}) for word in ("red", "blue", "green")]
    options: dict[str, Any] = {"kinds": ["length_constraints:number_words"], "sizes": (1, 1)}
    with pytest.raises(TooFewRows, match="gave inter rows"):
        build_rows(pairs, **options)
    assert build_rows(pairs, **options, parts=["intra"]).intra


def test_unknown_kind_is_refused(pairs: list[PairRow]) -> None:
    with pytest.raises(InvalidRequest, match="no kind of instruction 'wrong:kind'; known are"):
        build_rows(pairs, kinds=["wrong:kind", "keywords:existence"])
    with pytest.raises(InvalidRequest, match="no kind of instruction"):
        split_kinds(["wrong:kind"])
    with pytest.raises(InvalidRequest, match="are held out"):
        split_kinds(list(KINDS))


@pytest.mark.parametrize("sizes", [(0, 2), (3, 2)])
def test_sizes_that_cannot_be_are_refused(pairs: list[PairRow], sizes: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match="instructions a prompt cannot be"):
        build_rows(pairs, sizes=sizes)


def test_more_instructions_than_kinds_are_refused(pairs: list[PairRow]) -> None:
    with pytest.raises(InvalidRequest, match="there are 1 kinds"):
        build_rows(pairs, kinds=["keywords:existence"], sizes=(2, 3))


def test_too_few_rows_are_refused_with_counts() -> None:
    """Responses that differ in nothing but their last letter are parted by few instructions."""
    turns = ({"role": "user", "content": "Question"},)
    pairs = [PairRow(turns, f"a{letter}", f"b{letter}", {}) for letter in "cdefg"]
    kinds = ["punctuation:no_comma", "steerward:no_digits"]
    with pytest.raises(TooFewRows, match="0 of 5 pairs gave intra rows with 2 to 4"):
        build_rows(pairs, kinds=kinds)


def test_no_prompt_is_followed_better_than_itself(built: BuiltRows) -> None:
    for row in built.intra:
        same = is_followed_better(row.response, row.instructions_chosen, row.instructions_chosen)
        met = [one.is_met(row.response) for one in row.instructions_chosen]
        assert not (same and (all(met) or not any(met)))
        assert not is_followed_better(
            row.response, row.instructions_rejected, row.instructions_chosen
        )
