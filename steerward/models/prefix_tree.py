"""Prompts by their tokens: a radix tree, whose nodes know where their keys and values are.

What two prompts share is one node, above their own: a system prompt, earlier turns, the whole.
Nodes that a forward pass has computed stay for later ones, up to a bound; the least recently used
make room before the pass runs. No tensor is touched here and nothing waits for a device.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from steerward.models.key_values import GateSlot, KeyValues
from steerward.models.packing import common_prefix_length

# Below so many shared tokens, one more stretch of attention in every layer costs more than it
# saves.
LEAST_SHARED = 16
WHOLE = sys.maxsize
"""As `least_shared`: prompts share all of a node or nothing."""


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """Tokens that follow those of its parents."""

    ids: tuple[int, ...]
    start: int
    """Position of its first token."""
    parent: Node | None
    children: dict[tuple[int, ...], Node] = field(default_factory=dict[tuple[int, ...], "Node"])
    keys_values: KeyValues | None = None
    """None until a forward pass is to compute it."""
    offset: int = 0
    """Index of its first token in its keys and values."""
    gates: dict[int, GateSlot] = field(default_factory=dict[int, GateSlot])
    """Known and planned gates, by the position of their token."""
    owner: object = None
    """The plan that computes it, last."""

    @property
    def end(self) -> int:
        """Position behind its last token."""
        return self.start + len(self.ids)


class PrefixTree:
    """A radix tree over token ids.

    Args:
        capacity_tokens: Most tokens whose keys and values are kept between batches.
        least_shared: Fewest tokens for which a node is split in two.
    """

    def __init__(self, *, capacity_tokens: int = 0, least_shared: int = LEAST_SHARED) -> None:
        self._capacity_tokens = capacity_tokens
        self._least_shared = least_shared
        self._start()

    def clear(self) -> None:
        """Forget everything: for other weights, and after a failed forward pass."""
        for node in self._by_use:
            # Parents and children hold each other: their memory is freed now, not when the
            # garbage collector comes.
            node.parent, node.keys_values, node.owner = None, None, None
            node.children, node.gates = {}, {}
        self._start()

    def _start(self) -> None:
        self.root = Node((), 0, None)
        # Every use moves a path to the end, children before parents: the first is a leaf.
        self._by_use: OrderedDict[Node, None] = OrderedDict()
        self._uses: Counter[KeyValues] = Counter()
        self._num_tokens = 0
        self._fresh: set[KeyValues] = set()

    @property
    def keeps(self) -> bool:
        """Whether anything outlives a batch."""
        return self._capacity_tokens > 0

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are kept, or will be once a pass has computed them."""
        return self._num_tokens

    def holds(self, keys_values: KeyValues) -> bool:
        """Whether these are a node's."""
        return keys_values in self._uses

    def find(self, ids: Sequence[int]) -> list[Node]:
        """Return the nodes whose tokens these begin with; a node matches whole or not at all."""
        path: list[Node] = []
        node, at = self.root, 0
        while at < len(ids):
            child = node.children.get(self._key(ids, at))
            if child is None or ids[at : at + len(child.ids)] != child.ids:
                break
            path.append(child)
            node, at = child, child.end
        return path

    def insert(self, ids: tuple[int, ...]) -> list[Node]:
        """Return the nodes that hold exactly these tokens; where needed, they are made."""
        path = self.find(ids)
        node = path[-1] if path else self.root
        if (at := node.end) < len(ids):
            child = node.children.get(self._key(ids, at))
            if child is not None:
                upper = self._split(child, common_prefix_length(ids[at:], child.ids))
                path.append(upper)
                node, at = upper, upper.end
        if at < len(ids):
            path.append(self._add(Node(ids[at:], at, node)))
        for touched in reversed(path):
            self._by_use.move_to_end(touched)
        return path

    def assign(self, node: Node, keys_values: KeyValues, *, offset: int) -> None:
        """Say where the keys and values of a node will be."""
        self.forget(node)
        node.keys_values, node.offset = keys_values, offset
        if keys_values not in self._uses:
            self._num_tokens += keys_values.num_tokens
            self._fresh.add(keys_values)
        self._uses[keys_values] += 1

    def forget(self, node: Node) -> None:
        """Drop the keys and values of a node; it must be computed again."""
        keys_values, node.keys_values = node.keys_values, None
        if keys_values is None:
            return
        self._uses[keys_values] -= 1
        if not self._uses[keys_values]:
            del self._uses[keys_values]
            self._num_tokens -= keys_values.num_tokens

    def trim(self) -> None:
        """Drop the least recently used until the rest fits; call it before a forward pass runs.

        What the pass itself reads it must hold on its own, for it may be dropped here.
        """
        # What does not fit by itself must not push out all the rest before it goes.
        too_large = {one for one in self._fresh if one.num_tokens > self._capacity_tokens}
        self._fresh.clear()
        if too_large:
            for node in list(self._by_use):
                if node.keys_values in too_large and not node.children:
                    self._remove(node)
        while self._num_tokens > self._capacity_tokens and self._by_use:
            self._remove(next(iter(self._by_use)))

    def _key(self, ids: Sequence[int], at: int) -> tuple[int, ...]:
        return tuple(ids[at : at + self._least_shared])

    def _add(self, node: Node) -> Node:
        assert node.parent is not None
        node.parent.children[self._key(node.ids, 0)] = node
        self._by_use[node] = None
        return node

    def _split(self, node: Node, length: int) -> Node:
        """Make the first tokens of a node a node of their own, above it, and return that."""
        assert node.parent is not None
        upper = Node(node.ids[:length], node.start, node.parent, owner=node.owner)
        self._add(upper)
        if node.keys_values is not None:
            self.assign(upper, node.keys_values, offset=node.offset)
        upper.gates = {at: slot for at, slot in node.gates.items() if at < upper.end}
        node.gates = {at: slot for at, slot in node.gates.items() if at >= upper.end}
        node.ids, node.start = node.ids[length:], upper.end
        node.offset += length
        node.parent = upper
        upper.children[self._key(node.ids, 0)] = node
        return upper

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        assert not node.children
        del node.parent.children[self._key(node.ids, 0)]
        del self._by_use[node]
        self.forget(node)
