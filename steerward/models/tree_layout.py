"""From the part of a prefix tree that a plan touches to packed batches.

The touched nodes are walked depth first. A chain of nodes without a branch is one stretch of
tokens, whether computed now or known; so a prompt with one candidate is a single stretch.

Axis legend: T packed tokens, R read positions, N candidates, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, QueryRun, Span
from steerward.models.key_values import CachedSpan, Capture, GateSlot, KeyValues
from steerward.models.packing import PackedBatch
from steerward.models.prefix_tree import Node, PrefixTree


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Leaf:
    """What follows a prompt for one candidate, or for several equal ones."""

    parent: Node
    ids: tuple[int, ...]
    gate: tuple[int, GateSlot] | None = None
    """Position and slot of gates that are read here: of prompts that end in the gate's token."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate as asked for."""

    leaf: Leaf
    slot: GateSlot | None
    """Its prompt's gates; None if the model has none that are read from the prompt."""


@dataclass(slots=True, eq=False)
class _Stretch:
    """Consecutive tokens of one sequence: of a chain of nodes, of a leaf, or of both."""

    nodes: list[Node]
    leaf: Leaf | None
    before: tuple[_Stretch, ...]
    """The stretches that its tokens follow, from position 0."""
    is_computed: bool

    def ids(self) -> list[int]:
        leaf = self.leaf.ids if self.leaf else ()
        return [*(token for node in self.nodes for token in node.ids), *leaf]

    @property
    def start(self) -> int:
        """Position of the first token."""
        if self.nodes:
            return self.nodes[0].start
        assert self.leaf is not None
        return self.leaf.parent.end

    def cached(self) -> list[CachedSpan]:
        """Return where the keys and values of the nodes are."""
        spans: list[CachedSpan] = []
        for node in self.nodes:
            assert node.keys_values is not None
            end = node.offset + len(node.ids)
            spans.append(CachedSpan(node.keys_values, node.offset, end))
        return spans


class TreeLayout:
    """Lays out what a plan touches.

    Args:
        tree: Holds the prompts.
        owner: Of the nodes that are to be computed.
        candidates: In order of the output.
        new_slots: Gates that are to be computed.
    """

    def __init__(
        self,
        tree: PrefixTree,
        owner: object,
        *,
        candidates: Sequence[Candidate],
        new_slots: Iterable[GateSlot],
    ) -> None:
        self._tree = tree
        self._owner = owner
        self._candidates = candidates
        self._new_slots = frozenset(new_slots)

    def together(self) -> PackedBatch:
        """Return everything as one batch."""
        stretches = self._stretches(is_fused=True)
        computed = [stretch for stretch in stretches if stretch.is_computed]
        batch = self._pack(computed, self._candidates, captures=self._tree.keeps)
        self._tree.trim()
        # What is not to stay is not copied.
        kept = (one for one in batch.captures if self._tree.holds(one.keys_values))
        return replace(batch, captures=tuple(kept))

    def apart(self) -> list[PackedBatch]:
        """Return a batch for every stretch, those of prompts before those of candidates.

        Candidates of a batch are those of its leaf; the leaves are in order of first appearance.
        """
        computed = [s for s in self._stretches(is_fused=False) if s.is_computed]
        prompts = [stretch for stretch in computed if stretch.leaf is None]
        by_leaf = {stretch.leaf: stretch for stretch in computed if stretch.leaf is not None}
        of_leaf = {one.leaf: one for one in reversed(self._candidates)}
        leaves = dict.fromkeys(one.leaf for one in self._candidates)
        batches = [
            *(self._pack([stretch], [], captures=True) for stretch in prompts),
            *(self._pack([by_leaf[leaf]], [of_leaf[leaf]], captures=False) for leaf in leaves),
        ]
        self._tree.trim()
        return batches

    def _stretches(self, *, is_fused: bool) -> list[_Stretch]:
        """Return the touched part of the tree, depth first."""
        children, leaves = self._touched()
        root = _Stretch([self._tree.root], None, (), is_computed=False)
        found: list[_Stretch] = []
        waiting = [root]
        while waiting:
            stretch = waiting.pop()
            found.append(stretch)
            last = stretch.nodes[-1] if stretch.nodes else None
            below: list[Node | Leaf] = []
            while last is not None and stretch.leaf is None:
                below = [*children.get(last, ()), *leaves.get(last, ())]
                if not is_fused or not self._continues(stretch, below):
                    break
                (only,) = below
                below = []
                if isinstance(only, Leaf):
                    stretch.leaf = only
                else:
                    stretch.nodes.append(only)
                    last = only
            before = () if stretch is root else (*stretch.before, stretch)
            waiting.extend(self._stretch(one, before) for one in reversed(below))
        return found[1:]

    def _continues(self, stretch: _Stretch, below: Sequence[Node | Leaf]) -> bool:
        """Whether a stretch goes on with the only thing below it."""
        if len(below) != 1 or stretch.nodes[0] is self._tree.root:
            return False
        (only,) = below
        return stretch.is_computed == (isinstance(only, Leaf) or only.owner is self._owner)

    def _stretch(self, first: Node | Leaf, before: tuple[_Stretch, ...]) -> _Stretch:
        if isinstance(first, Leaf):
            return _Stretch([], first, before, is_computed=True)
        return _Stretch([first], None, before, is_computed=first.owner is self._owner)

    def _touched(self) -> tuple[dict[Node, dict[Node, None]], dict[Node, list[Leaf]]]:
        """Return children and leaves of the nodes that lead to a candidate."""
        children: dict[Node, dict[Node, None]] = {}
        leaves: dict[Node, list[Leaf]] = {}
        for leaf in dict.fromkeys(candidate.leaf for candidate in self._candidates):
            leaves.setdefault(leaf.parent, []).append(leaf)
            node = leaf.parent
            while node.parent is not None:
                siblings = children.setdefault(node.parent, {})
                if node in siblings:
                    break
                siblings[node] = None
                node = node.parent
        return children, leaves

    def _pack(
        self, stretches: Sequence[_Stretch], candidates: Sequence[Candidate], *, captures: bool
    ) -> PackedBatch:
        """Return one batch of stretches; all that they follow is among them or kept before."""
        packing = _Packing(self._new_slots, stretches)
        batch = packing.batch(candidates)
        if not captures:
            return batch
        return replace(batch, captures=tuple(packing.captures(self._tree)))


@dataclass(slots=True)
class _Reads:
    """The positions of a batch that are read, as they are found."""

    run_of: dict[int, int] = field(default_factory=dict[int, int])
    """Run of each packed position."""
    last: dict[Leaf, int] = field(default_factory=dict[Leaf, int])
    gates: dict[GateSlot, int] = field(default_factory=dict[GateSlot, int])


class _Packing:
    """One batch in the making."""

    def __init__(self, new_slots: frozenset[GateSlot], stretches: Sequence[_Stretch]) -> None:
        self._new_slots = new_slots
        self._stretches = stretches
        self._cached: list[CachedSpan] = []
        self._rows: dict[_Stretch, Span] = {}
        self._num_cached = 0
        self._place_cached()
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._runs: list[QueryRun] = []
        self._reads = _Reads()

    def batch(self, candidates: Sequence[Candidate]) -> PackedBatch:
        """Return it with the candidates that it scores."""
        for stretch in self._stretches:
            self._add(stretch)
        reads = self._reads
        positions = sorted(reads.run_of)
        row_of = {position: row for row, position in enumerate(positions)}
        known = dict.fromkeys(
            c.slot for c in candidates if c.slot is not None and c.slot not in reads.gates
        )
        prompt_of = {slot: p for p, slot in enumerate((*reads.gates, *known))}
        return PackedBatch(
            input_ids_T=_tensor(self._ids),
            position_ids_T=_tensor(self._positions),
            layout=AttentionLayout(tuple(self._runs)),
            read_layout=AttentionLayout(self._read_runs(positions)),
            read_positions_R=_tensor(positions),
            last_rows_N=_tensor(row_of[reads.last[one.leaf]] for one in candidates),
            gating_rows_P=_tensor(row_of[position] for position in reads.gates.values()),
            prompt_index_N=_tensor(
                0 if one.slot is None else prompt_of[one.slot] for one in candidates
            ),
            cached=tuple(self._cached),
            gate_slots=tuple(reads.gates),
            known_gates=tuple(known),
        )

    def _place_cached(self) -> None:
        """Give the keys that are known already the first rows."""
        inside = set(self._stretches)
        for stretch in self._stretches:
            for one in stretch.before:
                if one in inside or one in self._rows:
                    continue
                spans = one.cached()
                length = sum(span.end - span.start for span in spans)
                self._rows[one] = Span(self._num_cached, self._num_cached + length)
                self._num_cached += length
                self._cached.extend(spans)

    def _add(self, stretch: _Stretch) -> None:
        start = len(self._ids)
        self._ids.extend(stretch.ids())
        end = len(self._ids)
        self._positions.extend(range(stretch.start, stretch.start + end - start))
        rows = Span(self._num_cached + start, self._num_cached + end)
        self._rows[stretch] = rows
        spans = tuple(self._rows[one] for one in stretch.before)
        self._add_reads(stretch, start, end)
        self._runs.append(QueryRun(start, end, spans, rows))

    def _add_reads(self, stretch: _Stretch, start: int, end: int) -> None:
        gates = {p: slot for node in stretch.nodes for p, slot in node.gates.items()}
        if stretch.leaf is not None:
            self._reads.last[stretch.leaf] = end - 1
            self._reads.run_of[end - 1] = len(self._runs)
            if stretch.leaf.gate is not None:
                gates.update([stretch.leaf.gate])
        for position, slot in gates.items():
            if slot in self._new_slots:
                packed = start + position - stretch.start
                self._reads.gates[slot] = packed
                self._reads.run_of[packed] = len(self._runs)

    def captures(self, tree: PrefixTree) -> Iterator[Capture]:
        """Let later batches find the keys and values of the nodes of this one."""
        for stretch, run in zip(self._stretches, self._runs, strict=True):
            keys_values = KeyValues(sum(len(node.ids) for node in stretch.nodes))
            offset = 0
            for node in stretch.nodes:
                tree.assign(node, keys_values, offset=offset)
                offset += len(node.ids)
            if offset:
                yield Capture(keys_values, run.start, run.start + offset)

    def _read_runs(self, positions: Sequence[int]) -> tuple[QueryRun, ...]:
        runs: list[QueryRun] = []
        for row, position in enumerate(positions):
            run = self._runs[self._reads.run_of[position]]
            own = Span(run.own.start, self._num_cached + position + 1)
            runs.append(QueryRun(row, row + 1, run.spans, own))
        return tuple(runs)


def _tensor(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)
