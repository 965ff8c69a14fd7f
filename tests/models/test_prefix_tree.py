"""The tree of prompts: found by their tokens, split where they part, dropped when long unused."""

from __future__ import annotations

import gc
import random
import weakref

from hypothesis import given
from hypothesis import strategies as st

from steerward.models.key_values import KeyValues
from steerward.models.prefix_tree import PrefixTree


def fill(tree: PrefixTree, ids: tuple[int, ...]) -> None:
    """Insert a prompt as the plan of a forward pass would."""
    for node in tree.insert(ids):
        if node.keys_values is None:
            tree.assign(node, KeyValues(len(node.ids)), offset=0)
    tree.trim()


@given(seed=st.integers(0, 2**16), capacity=st.integers(1, 60))
def test_what_is_found_is_a_beginning_and_memory_stays_bounded(seed: int, capacity: int) -> None:
    rng = random.Random(seed)
    tree = PrefixTree(capacity_tokens=capacity, least_shared=rng.choice([1, 3]))
    for _ in range(20):
        ids = tuple(rng.randrange(2) for _ in range(rng.randint(1, 15)))
        fill(tree, ids)
        assert tree.num_tokens <= capacity
        path = tree.find(ids)
        assert (
            tuple(token for node in path for token in node.ids) == ids[: len(path) and path[-1].end]
        )


def test_the_least_recently_used_goes_first() -> None:
    tree = PrefixTree(capacity_tokens=60)
    one, two, three = (tuple(range(i, i + 20)) for i in (0, 100, 200))
    for ids in (one, two, three, one):
        fill(tree, ids)
    fill(tree, tuple(range(300, 320)))
    assert [bool(tree.find(ids)) for ids in (one, two, three)] == [True, False, True]


def test_a_longer_conversation_keeps_its_beginning_in_use() -> None:
    tree = PrefixTree(capacity_tokens=60)
    turn = tuple(range(20))
    fill(tree, turn)
    fill(tree, tuple(range(100, 120)))
    fill(tree, (*turn, *range(20, 40)))
    fill(tree, tuple(range(200, 210)))
    assert tree.find(turn)
    assert not tree.find(tuple(range(100, 120)))


def test_halves_of_a_split_node_hold_their_memory_together() -> None:
    tree = PrefixTree(capacity_tokens=100)
    fill(tree, tuple(range(40)))
    fill(tree, (*range(20), *range(500, 520)))
    assert tree.num_tokens == 60
    upper, lower = tree.find(tuple(range(40)))
    assert upper.keys_values is lower.keys_values
    assert (upper.offset, lower.offset) == (0, 20)


def test_clear_forgets_everything() -> None:
    tree = PrefixTree(capacity_tokens=10**6)
    fill(tree, tuple(range(40)))
    tree.clear()
    assert (tree.num_tokens, tree.find(tuple(range(40)))) == (0, [])


def test_a_prompt_larger_than_the_memory_leaves_the_others() -> None:
    tree = PrefixTree(capacity_tokens=50)
    small = tuple(range(20))
    fill(tree, small)
    fill(tree, tuple(range(100, 200)))
    assert tree.find(small)
    assert tree.num_tokens == 20


def test_what_is_cleared_is_freed_at_once() -> None:
    """Parents and children hold each other, and would wait for the garbage collector."""
    tree = PrefixTree(capacity_tokens=10**6)
    fill(tree, tuple(range(40)))
    fill(tree, (*range(20), *range(500, 520)))
    kept = [weakref.ref(node.keys_values) for node in tree.find(tuple(range(40)))]
    gc.disable()
    try:
        tree.clear()
        assert [one() for one in kept] == [None, None]
    finally:
        gc.enable()
