"""The packed layout: every token once, positions as alone, candidates in order."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.models.chat import EncodedConversation
from steerward.models.packing import Group, common_prefix_length, group_conversations, pack

ids = st.lists(st.integers(0, 5), max_size=12)


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=5))
def test_common_prefix_is_the_longest(sequences: list[list[int]]) -> None:
    length = common_prefix_length(sequences)
    assert len({tuple(sequence[:length]) for sequence in sequences}) == 1
    longer = [tuple(sequence[: length + 1]) for sequence in sequences]
    assert len(set(longer)) > 1 or any(len(s) == length for s in sequences)


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    sizes=st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=4)),
        min_size=1,
        max_size=5,
    ),
)
def test_packed_batch_holds_each_candidate_as_it_is_alone(
    seed: int, sizes: list[tuple[int, list[int]]]
) -> None:
    rng = random.Random(seed)
    groups = [
        Group(
            [rng.randrange(100) for _ in range(prefix)],
            [[rng.randrange(100) for _ in range(length)] for length in suffixes],
            rng.randrange(prefix),
        )
        for prefix, suffixes in sizes
    ]
    batch = pack(groups)
    assert batch.num_tokens == sum(group.num_tokens for group in groups)
    assert sum(s.end - s.start for s in batch.segments) == batch.num_tokens
    by_end = {segment.end - 1: segment for segment in batch.segments}
    n = 0
    for p, group in enumerate(groups):
        gate = int(batch.gating_positions_P[p])
        assert batch.input_ids_T[gate] == group.prefix[group.gating_position]
        assert batch.position_ids_T[gate] == group.gating_position
        for suffix in group.suffixes:
            assert int(batch.prompt_index_N[n]) == p
            segment = by_end[int(batch.last_positions_N[n])]
            seen = torch.cat(
                [
                    torch.arange(segment.prefix_start, segment.prefix_end),
                    torch.arange(segment.start, segment.end),
                ]
            )
            whole = [*group.prefix, *suffix]
            assert batch.input_ids_T[seen].tolist() == whole
            assert batch.position_ids_T[seen].tolist() == list(range(len(whole)))
            n += 1
    assert n == batch.num_candidates


def test_single_candidate_is_one_segment() -> None:
    batch = pack([Group([1, 2, 3], [[4, 5]], gating_position=1)])
    assert [(s.start, s.end, s.prefix_end) for s in batch.segments] == [(0, 5, 0)]


def test_candidates_of_one_prompt_share_its_tokens() -> None:
    conversations = [
        EncodedConversation([1, 2, 3, 7, 8], prompt_length=3, gating_position=1),
        EncodedConversation([1, 2, 3, 9], prompt_length=3, gating_position=1),
    ]
    (group,) = group_conversations(conversations)
    assert list(group.prefix) == [1, 2, 3]
    assert [list(suffix) for suffix in group.suffixes] == [[7, 8], [9]]


def test_shared_beginnings_of_candidates_stay_theirs() -> None:
    """A prefix never reaches into the candidates, however alike they begin."""
    conversations = [
        EncodedConversation([1, 2, 3, 7, 8], prompt_length=3, gating_position=1),
        EncodedConversation([1, 2, 3, 7], prompt_length=3, gating_position=1),
    ]
    (group,) = group_conversations(conversations)
    assert len(group.prefix) == 3


def test_prompts_that_differ_before_the_gate_are_groups_of_their_own() -> None:
    conversations = [
        EncodedConversation([1, 2, 3, 7], prompt_length=3, gating_position=2),
        EncodedConversation([1, 5, 3, 7], prompt_length=3, gating_position=2),
    ]
    assert [group.num_tokens for group in group_conversations(conversations)] == [4, 4]


def test_gate_at_the_very_end_of_a_single_prompt_is_kept() -> None:
    (group,) = group_conversations([EncodedConversation([4, 5], 1, 1)])
    batch = pack([group])
    assert batch.gating_positions_P.tolist() == [1]
