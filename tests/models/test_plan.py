"""What a forward pass computes: every token sees what it would see alone, nothing twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerward.kernels.prefix_attention.layout import QueryRun
from steerward.models.packing import Group, PackedBatch
from steerward.models.plan import BatchPlan, Placement, pack
from steerward.models.prefix_tree import WHOLE, PrefixTree


def simulate(batch: PackedBatch) -> Tensor:
    """Run a batch with ids for keys and positions for values, and return both, (keys, 2)."""
    now = torch.stack((batch.input_ids_T, batch.position_ids_T), dim=-1)
    before = [
        torch.cat(span.keys_values.by_layer[0], dim=3)[0, 0, span.start : span.end]
        for span in batch.cached
    ]
    for capture in batch.captures:
        kept = now[capture.start : capture.end][None, None]
        capture.keys_values.by_layer[0] = kept[..., :1], kept[..., 1:]
    for p, slot in enumerate(batch.gate_slots):
        slot.gates_K = now[batch.gating_positions_P[p]]
    return torch.cat([*before, now])


def seen(run: QueryRun, keys: Tensor) -> Tensor:
    return torch.cat([keys[span.start : span.end] for span in (*run.spans, run.own)])


def check(batch: PackedBatch, groups: Sequence[Group], placements: Sequence[Placement]) -> None:
    """Fail unless every candidate and every gate reads its own conversation, whole."""
    keys = simulate(batch)
    known = [slot.gates_K for slot in batch.known_gates]
    gates = [*(slot.gates_K for slot in batch.gate_slots), *known]
    for group, placement in zip(groups, placements, strict=True):
        for suffix, n in zip(group.suffixes, range(placement.first, 10**9), strict=False):
            whole = [*group.prefix, *suffix]
            expected = torch.tensor([whole, range(len(whole))]).T
            run = batch.read_layout.runs[int(batch.last_rows_N[n])]
            assert torch.equal(seen(run, keys), expected)
            at = group.gating_position
            gate = gates[int(batch.prompt_index_N[n])]
            assert gate is not None
            assert gate.tolist() == [whole[at], at]
    check_full_layout(batch, keys)


def check_full_layout(batch: PackedBatch, keys: Tensor) -> None:
    """Fail unless each token sees the tokens of its sequence up to itself."""
    end = 0
    for run in batch.layout.runs:
        assert run.start == end
        end = run.end
        length = run.end - run.start
        assert run.own.end - run.own.start == length
        assert torch.equal(keys[run.own.start : run.own.end, 0], batch.input_ids_T[run.start : end])
        positions = seen(run, keys)[:, 1]
        assert positions.tolist() == list(range(len(positions)))
    assert end == batch.num_tokens


def random_groups(rng: random.Random, count: int) -> list[Group]:
    """Prompts over few tokens, so that they share beginnings of all lengths."""
    groups: list[Group] = []
    for _ in range(count):
        prefix = tuple(rng.randrange(2) for _ in range(rng.randint(1, 9)))
        if groups and rng.random() < 0.5:
            prefix = rng.choice(groups).prefix + prefix
        suffixes = [
            tuple(rng.randrange(2) for _ in range(rng.randint(1, 3)))
            for _ in range(rng.randint(1, 3))
        ]
        # Templates without a closing token have the gate read the candidate's first token.
        beyond = len(suffixes) == 1 and rng.random() < 0.1
        groups.append(Group(prefix, suffixes, len(prefix) - 1 + beyond))
    return groups


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**16),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    capacity_tokens=st.sampled_from([0, 10, 40, 10_000]),
    least_shared=st.sampled_from([1, 2, 5, WHOLE]),
)
def test_candidates_see_their_conversation_in_any_company_and_cache_state(
    seed: int, counts: list[int], capacity_tokens: int, least_shared: int
) -> None:
    rng = random.Random(seed)
    tree = PrefixTree(capacity_tokens=capacity_tokens, least_shared=least_shared)
    for count in counts:
        groups = random_groups(rng, count)
        if not tree.keeps:
            tree.clear()
        plan = BatchPlan(tree)
        placements = [plan.add(group) for group in groups]
        batch = plan.batch()
        # Room is made before the pass runs, for no more than it is to keep.
        assert tree.num_tokens <= capacity_tokens
        assert sum(capture.end - capture.start for capture in batch.captures) <= tree.num_tokens
        check(batch, groups, placements)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 8))
def test_each_shared_beginning_is_computed_once(seed: int, count: int) -> None:
    groups = random_groups(random.Random(seed), count)
    plan = BatchPlan(PrefixTree(least_shared=1))
    placements = [plan.add(group) for group in groups]
    beginnings = {g.prefix[:end] for g in groups for end in range(1, len(g.prefix) + 1)}
    leaves = {(g.prefix, s, g.gating_position) for g in groups for s in g.suffixes}
    tokens = len(beginnings) + sum(len(suffix) for _, suffix, _ in leaves)
    assert plan.batch().num_tokens == tokens
    prompts = sum(len(g.prefix) * len(g.suffixes) for g in groups)
    assert sum(p.tokens_saved for p in placements) == prompts - len(beginnings)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**16), counts=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_apart_each_pass_depends_on_its_own_conversation_alone(
    seed: int, counts: list[int]
) -> None:
    rng = random.Random(seed)
    tree = PrefixTree(capacity_tokens=10**9, least_shared=WHOLE)
    for count in counts:
        groups = random_groups(rng, count)
        plan = BatchPlan(tree)
        placements = [plan.add(group) for group in groups]
        batches, rows = plan.batches(), plan.leaf_rows()
        of_leaf: list[tuple[PackedBatch, Tensor]] = []
        for batch in batches:
            keys = simulate(batch)
            assert len(batch.layout.runs) == 1
            if batch.num_candidates:
                assert batch.num_candidates == 1
                of_leaf.append((batch, keys))
        for group, placement in zip(groups, placements, strict=True):
            for i, suffix in enumerate(group.suffixes):
                batch, keys = of_leaf[rows[placement.first + i]]
                (run,) = batch.layout.runs
                # Shapes of this pass: its own tokens, and the prompt before them as one piece.
                assert (run.end, [s.end - s.start for s in run.spans]) == (
                    len(suffix),
                    [len(group.prefix)],
                )
                assert seen(run, keys)[:, 0].tolist() == [*group.prefix, *suffix]


def test_a_prompt_with_one_candidate_is_one_run() -> None:
    batch = pack([Group((1, 2, 3), [(4, 5)], 1)])
    (run,) = batch.layout.runs
    assert (run.start, run.end, run.spans) == (0, 5, ())


def test_cost_is_what_a_group_adds() -> None:
    tree = PrefixTree(capacity_tokens=10**9)
    prompt, other = tuple(range(40)), tuple(range(20, 60))
    plan = BatchPlan(tree)
    assert plan.cost(Group(prompt, [(1, 2), (3,)], 0)) == 43
    plan.add(Group(prompt, [(1, 2), (3,)], 0))
    assert plan.cost(Group(prompt, [(1, 2), (4, 4)], 0)) == 2
    assert plan.cost(Group(other, [(1, 2)], 0)) == 42
    simulate(plan.batch())
    again = BatchPlan(tree)
    assert again.cost(Group(prompt, [(1, 2)], 0)) == 2
    placement = again.add(Group(prompt, [(1, 2), (9,)], 0))
    assert (placement.tokens_cached, placement.tokens_saved) == (40, 80)


def test_a_pass_planned_while_another_runs_counts_on_its_prompts() -> None:
    tree = PrefixTree(capacity_tokens=10**9)
    first, second = BatchPlan(tree), BatchPlan(tree)
    group = Group(tuple(range(30)), [(7,)], 29)
    first.add(group)
    running = first.batch()
    placements = [second.add(group)]
    waiting = second.batch()
    assert waiting.num_tokens == 1
    simulate(running)
    check(waiting, [group], placements)


def test_a_kept_prompt_whose_gates_were_never_asked_for_is_computed_again() -> None:
    tree = PrefixTree(capacity_tokens=10**9)
    ids = tuple(range(40))
    for position in (39, 39, 20):
        plan = BatchPlan(tree)
        group = Group(ids, [(7,)], position)
        expected = plan.cost(group)
        placements = [plan.add(group)]
        batch = plan.batch()
        check(batch, [group], placements)
        computed = batch.num_tokens
        assert computed == expected
        assert placements[0].tokens_cached == 41 - computed
    assert computed == 41


def test_system_prompts_are_shared_by_different_prompts() -> None:
    system = tuple(range(100, 130))
    groups = [Group((*system, *range(i, i + 20)), [(1,)], 30) for i in (0, 40)]
    batch = pack(groups)
    assert batch.num_tokens == 30 + 2 * 21
    assert [len(run.spans) for run in batch.layout.runs] == [0, 1, 1]


def test_few_shared_tokens_are_not_worth_a_cut() -> None:
    batch = pack([Group((1, 2, *range(i, i + 20)), [(1,)], 0) for i in (10, 40)])
    assert [len(run.spans) for run in batch.layout.runs] == [0, 0]


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    ids = tuple(range(20_000))
    groups = [Group(ids[:end], [(5,)], 0) for end in range(16, len(ids), 16)]
    batch = pack(groups)
    assert batch.num_tokens == len(groups) * 17


@pytest.mark.parametrize("needs_gates", [True, False])
def test_without_gates_only_last_tokens_are_read(needs_gates: bool) -> None:
    plan = BatchPlan(PrefixTree(), needs_gates=needs_gates)
    plan.add(Group(tuple(range(20)), [(1, 2), (3, 4)], 19))
    assert len(plan.batch().read_positions_R) == 2 + needs_gates
