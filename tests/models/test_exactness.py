"""A score is the same alone, in any batch and order, behind shared beginnings, cached or not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.models.checkpoint import load_reward_model
from steerward.models.output import RewardOutput
from steerward.models.packing import Group
from steerward.models.prefix_tree import WHOLE, PrefixTree
from steerward.models.reward_model import RewardModel
from tests.golden_cases import GOLDEN, GOLDEN_NAMES
from tests.tolerances import SCORE_TOLERANCE


def score_through(model: RewardModel, groups: Sequence[Group], tree: PrefixTree) -> RewardOutput:
    plan = model.plan(tree)
    for group in groups:
        plan.add(group)
    batch = plan.batch()
    output = model(batch).by_candidate(model.gate_rows(batch))
    return output


def score_apart(model: RewardModel, groups: Sequence[Group], tree: PrefixTree) -> RewardOutput:
    plan = model.plan(tree)
    for group in groups:
        plan.add(group)
    output = model.forward_apart(plan.batches()).rows(plan.leaf_rows())
    return output


def alone(model: RewardModel, groups: Sequence[Group]) -> RewardOutput:
    """Return the output of one sequence at a time."""
    each = [
        model.score([Group(group.prefix, [suffix], group.gating_position)])
        for group in groups
        for suffix in group.suffixes
    ]
    return RewardOutput.joined(each)


def assert_same(actual: RewardOutput, expected: RewardOutput, *, dtype: torch.dtype) -> None:
    for name in ("rewards_NK", "scores_N", "gates", "coefficients"):
        ours, theirs = getattr(actual, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            atol = SCORE_TOLERANCE[dtype] * max(1.0, float(theirs.abs().max()))
            torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def random_groups(rng: random.Random, count: int, *, longest: int) -> list[Group]:
    """Groups of which some begin as others do, by a system prompt or by earlier turns."""
    groups: list[Group] = []

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 1000) for _ in range(rng.randint(1, most)))

    for _ in range(count):
        before = rng.choice(groups).prefix if groups and rng.random() < 0.6 else ()
        before = before[: rng.randint(0, len(before))] if rng.random() < 0.3 else before
        prefix = (*before, *ids(longest))
        suffixes = [ids(longest) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.2:
            suffixes.append(suffixes[0])
        groups.append(Group(prefix, suffixes, rng.randrange(len(prefix))))
    return groups


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(GOLDEN_NAMES),
    seed=st.integers(0, 2**16),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    capacity_tokens=st.sampled_from([0, 40, 10**9]),
)
def test_company_order_and_cache_change_no_score(
    golden_models: dict[str, RewardModel],
    name: str,
    seed: int,
    counts: list[int],
    capacity_tokens: int,
) -> None:
    model, rng = golden_models[name], random.Random(seed)
    tree = PrefixTree(capacity_tokens=capacity_tokens)
    seen: list[Group] = []
    for count in counts:
        groups = random_groups(rng, count, longest=30)
        groups += rng.sample(seen, min(len(seen), 2))
        rng.shuffle(groups)
        seen += groups
        if not tree.keeps:
            tree.clear()
        assert_same(score_through(model, groups, tree), alone(model, groups), dtype=torch.float32)
        assert tree.num_tokens <= capacity_tokens


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_long_texts_are_no_exception(golden_models: dict[str, RewardModel], seed: int) -> None:
    model = golden_models["armorm"]
    tree = PrefixTree(capacity_tokens=10**9)
    for _ in range(2):
        groups = random_groups(random.Random(seed), 3, longest=600)
        groups = [g for g in groups if len(g.prefix) + max(map(len, g.suffixes)) <= 2048]
        assert_same(score_through(model, groups, tree), alone(model, groups), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8], ids=str)
def test_narrow_types_stay_within_their_tolerance(dtype: torch.dtype) -> None:
    model = load_reward_model(GOLDEN / "armorm", device="cpu", dtype=str(dtype).split(".")[1])
    rng = random.Random(1)
    tree = PrefixTree(capacity_tokens=10**9)
    for _ in range(4):
        groups = random_groups(rng, 4, longest=40)
        assert_same(score_through(model, groups, tree), alone(model, groups), dtype=dtype)


def test_apart_a_gate_may_be_read_behind_the_prompt(
    golden_models: dict[str, RewardModel],
) -> None:
    """So it is where the template adds nothing to an empty candidate: no gates in the prompt."""
    model = golden_models["armorm"]
    group = Group(tuple(range(5, 30)), [(7, 8)], 25)
    found = score_apart(model, [group], PrefixTree(least_shared=WHOLE))
    assert_same(found, alone(model, [group]), dtype=torch.float32)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(GOLDEN_NAMES),
    seed=st.integers(0, 2**16),
    capacity_tokens=st.sampled_from([0, 40, 10**9]),
)
def test_apart_scores_are_equal_to_the_bit(
    golden_models: dict[str, RewardModel], name: str, seed: int, capacity_tokens: int
) -> None:
    model, rng = golden_models[name], random.Random(seed)
    tree = PrefixTree(capacity_tokens=capacity_tokens, least_shared=WHOLE)
    groups = random_groups(rng, 4, longest=40)
    singles = [Group(g.prefix, [s], g.gating_position) for g in groups for s in g.suffixes]
    expected = RewardOutput.joined(
        [score_apart(model, [one], PrefixTree(least_shared=WHOLE)) for one in singles]
    )
    assert_same(expected, alone(model, groups), dtype=torch.float32)
    for _ in range(2):
        if not tree.keeps:
            tree.clear()
        found = score_apart(model, groups, tree)
        for name_ in ("rewards_NK", "scores_N", "gates", "coefficients"):
            ours, theirs = getattr(found, name_), getattr(expected, name_)
            assert ours is None or torch.equal(ours, theirs)
