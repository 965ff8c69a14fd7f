"""Equal prompts meet in a batch, whoever sent them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steerward.engine.prefix import merge_groups
from steerward.models.packing import Group


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=10))
def test_merging_places_every_candidate_and_computes_each_prompt_once(
    shape: list[tuple[int, int]],
) -> None:
    groups = [
        Group([prompt] * (prompt + 2), [[i, n] for n in range(count)], gating_position=1)
        for i, (prompt, count) in enumerate(shape)
    ]
    merged, placements = merge_groups(groups)
    assert len({tuple(group.prefix) for group in merged}) == len(merged)
    rows = [(p, suffix) for p, group in enumerate(merged) for suffix in group.suffixes]
    for group, placement in zip(groups, placements, strict=True):
        there = rows[placement.rows]
        assert [suffix for _, suffix in there] == list(group.suffixes)
        assert {p for p, _ in there} == {placement.prompt}
        assert list(merged[placement.prompt].prefix) == list(group.prefix)
    alone = sum(len(g.prefix) * len(g.suffixes) for g in groups)
    together = sum(len(g.prefix) for g in merged)
    assert sum(placement.tokens_saved for placement in placements) == alone - together


def test_prompts_with_other_gates_stay_apart() -> None:
    merged, _ = merge_groups([Group([1, 2], [[3]], 0), Group([1, 2], [[3]], 1)])
    assert len(merged) == 2
