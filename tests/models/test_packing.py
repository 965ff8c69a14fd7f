"""Groups: candidates of one prompt, cut where the prompt ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.models.chat import EncodedConversation
from steerward.models.packing import common_prefix_length, group_conversations
from steerward.models.plan import pack

ids = st.lists(st.integers(0, 5), max_size=12)


@settings(deadline=None)
@given(ids, ids)
def test_common_prefix_is_the_longest(one: list[int], other: list[int]) -> None:
    length = common_prefix_length(one, other)
    assert one[:length] == other[:length]
    assert one[: length + 1] != other[: length + 1] or length == min(len(one), len(other))


def test_candidates_of_one_prompt_share_its_tokens() -> None:
    conversations = [
        EncodedConversation([1, 2, 3, 7, 8], prompt_length=3, gating_position=1),
        EncodedConversation([1, 2, 3, 9], prompt_length=3, gating_position=1),
    ]
    (group,) = group_conversations(conversations)
    assert group.prefix == (1, 2, 3)
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


def test_the_cut_does_not_depend_on_the_neighbours() -> None:
    """Else the same candidate would be computed in other shapes beside others."""
    one = EncodedConversation([1, 2, 3, 7], prompt_length=3, gating_position=0)
    other = EncodedConversation([1, 2, 9, 7], prompt_length=3, gating_position=0)
    alone = [group for each in (one, other, one) for group in group_conversations([each])]
    assert group_conversations([one, other, one]) == alone


def test_candidates_stay_in_order() -> None:
    one = EncodedConversation([1, 2, 3, 7], prompt_length=3, gating_position=0)
    other = EncodedConversation([1, 2, 9, 8], prompt_length=3, gating_position=0)
    groups = group_conversations([one, other, other, one])
    assert [list(group.suffixes) for group in groups] == [[(7,)], [(8,), (8,)], [(7,)]]


def test_gate_at_the_very_end_of_a_single_prompt_is_kept() -> None:
    (group,) = group_conversations([EncodedConversation([4, 5], 1, 1)])
    batch = pack([group])
    assert batch.gating_positions_P.tolist() == [1]
