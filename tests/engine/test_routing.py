"""Which replica gets a request."""

from __future__ import annotations

from steerward.engine.routing import Router, prompt_key
from steerward.protocol.scoring import ScoreItem


def test_known_prompt_goes_where_it_has_been_within_the_slack() -> None:
    router = Router(slack_tokens=100)
    router.note([7], 1)
    assert router.order([7], {0: 0, 1: 100, 2: 50}) == [1, 0, 2]
    assert router.order([7], {0: 0, 1: 101, 2: 50}) == [0, 2, 1]


def test_unknown_prompts_go_to_the_shortest_queue_and_equal_ones_take_turns() -> None:
    router = Router(slack_tokens=100)
    assert router.order([1], {0: 20, 1: 10}) == [1, 0]
    first = router.order([1], {0: 0, 1: 0})[0]
    router.note([1], first)
    assert router.order([2], {0: 0, 1: 0})[0] == 1 - first


def test_most_of_the_prompts_decide() -> None:
    router = Router(slack_tokens=100)
    router.note([1], 0)
    router.note([2, 3], 1)
    assert router.order([1, 2, 3], {0: 0, 1: 50})[0] == 1
    # Too much waits there: the one that knows fewer of them.
    assert router.order([1, 2, 3], {0: 60, 1: 200, 2: 0})[0] == 0


def test_replica_that_takes_none_is_left_out() -> None:
    router = Router(slack_tokens=100)
    router.note([1], 0)
    assert router.order([1], {1: 1000}) == [1]


def test_only_the_latest_prompts_are_remembered() -> None:
    router = Router(slack_tokens=100, max_prompts=2)
    router.note([1], 1)
    router.note([2], 0)
    router.note([1], 1)
    router.note([3], 0)
    assert len(router._seen) == 2
    assert router.order([1], {0: 0, 1: 50})[0] == 1
    assert router.order([2], {0: 10, 1: 0})[0] == 1


def test_note_that_is_taken_back_leaves_what_was_known_before() -> None:
    router = Router(slack_tokens=100)
    router.note([1], 1)
    router.take_back(router.note([1, 2], 0))
    assert router.order([1], {0: 0, 1: 50})[0] == 1
    assert router.order([2], {0: 50, 1: 0})[0] == 1


def test_note_that_another_has_followed_is_not_taken_back() -> None:
    router = Router(slack_tokens=100)
    first = router.note([1], 0)
    router.note([1], 0)
    router.take_back(first)
    assert router.order([1], {0: 50, 1: 0})[0] == 0


def test_prompt_is_the_same_in_both_forms_of_an_item() -> None:
    one = ScoreItem(prompt="Why?", candidates=["a", "b"])
    other = ScoreItem.model_validate(
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "c"}]}
    )
    assert prompt_key(one) == prompt_key(other)
    assert prompt_key(one) != prompt_key(ScoreItem(prompt="How?", candidates=["a"]))
