"""What one forward pass computes: each shared stretch of tokens once, what is known not again.

Groups are added one by one; `cost` says beforehand what one would add. Then the batch is laid
out, `steerward.models.tree_layout`.

Axis legend: N candidates, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerward.models.key_values import GateSlot
from steerward.models.packing import Group, PackedBatch
from steerward.models.prefix_tree import Node, PrefixTree
from steerward.models.tree_layout import Candidate, Leaf, TreeLayout


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the candidates of a group stand in the output, and what sharing saved."""

    first: int
    """Row of the first candidate; the others follow it."""
    count: int
    tokens_saved: int
    """Prefix tokens that were not computed for it, counted for each candidate."""
    tokens_cached: int
    """Prefix tokens that an earlier batch had computed, counted once."""

    @property
    def rows(self) -> slice:
        """Rows of the group's candidates."""
        return slice(self.first, self.first + self.count)


class BatchPlan:
    """Collects the groups of one forward pass.

    Args:
        tree: Prompts known so far; this plan adds its own.
        needs_gates: Whether the model reads gates from prompts.
    """

    def __init__(self, tree: PrefixTree, *, needs_gates: bool = True) -> None:
        self._tree = tree
        self._needs_gates = needs_gates
        # Marks the nodes that this plan computes; they outlive it, and must not keep it alive.
        self._mark = object()
        self._candidates: list[Candidate] = []
        self._leaves: dict[tuple[Node, tuple[int, ...], int], Leaf] = {}
        self._new_slots: dict[GateSlot, None] = {}

    def cost(self, group: Group) -> int:
        """Return how many tokens the group would add to the forward pass, about."""
        path = self._tree.find(group.prefix)
        known = sum(
            len(node.ids)
            for node in path
            if self._is_there(node) and not self._lacks_gates(node, group)
        )
        end = path[-1] if path and path[-1].end == len(group.prefix) else None
        return (
            len(group.prefix)
            - known
            + sum(
                len(suffix)
                for suffix in group.suffixes
                if end is None or (end, suffix, group.gating_position) not in self._leaves
            )
        )

    def add(self, group: Group) -> Placement:
        """Take a group into the forward pass; its candidates come behind those added before."""
        path = self._tree.insert(group.prefix)
        slot = self._prompt_slot(path, group)
        computed = cached = 0
        for node in path:
            if not self._is_there(node):
                node.owner = self._mark
                computed += len(node.ids)
            elif node.owner is not self._mark:
                cached += len(node.ids)
        end = path[-1] if path else self._tree.root
        first = len(self._candidates)
        for suffix in group.suffixes:
            leaf = self._leaf(end, suffix, group)
            self._candidates.append(Candidate(leaf, leaf.gate[1] if leaf.gate else slot))
        saved = len(group.suffixes) * len(group.prefix) - computed
        return Placement(first, len(group.suffixes), saved, cached)

    def batch(self) -> PackedBatch:
        """Return the forward pass; nothing can be added after it."""
        return self._layout().together()

    def batches(self) -> list[PackedBatch]:
        """Return a forward pass for each prompt and each candidate, to be run in order.

        The shape of each depends on its own conversation alone, so its numbers do too, to the
        bit. Candidates are in order, equal ones only once.
        """
        return self._layout().apart()

    def leaf_rows(self) -> list[int]:
        """Return for each candidate the row it has among the candidates of `batches`."""
        rows: dict[Leaf, int] = {}
        return [rows.setdefault(one.leaf, len(rows)) for one in self._candidates]

    def _layout(self) -> TreeLayout:
        return TreeLayout(
            self._tree, self._mark, candidates=self._candidates, new_slots=self._new_slots
        )

    def _is_there(self, node: Node) -> bool:
        """Whether a node is computed by this plan already, or was before it."""
        return node.owner is self._mark or node.keys_values is not None

    def _lacks_gates(self, node: Node, group: Group) -> bool:
        """Whether the gates are read in a node that keeps none for that position."""
        position = group.gating_position
        is_inside = node.start <= position < node.end
        return self._needs_gates and is_inside and position not in node.gates

    def _leaf(self, end: Node, suffix: tuple[int, ...], group: Group) -> Leaf:
        key = (end, suffix, group.gating_position if self._needs_gates else 0)
        if key not in self._leaves:
            gate: tuple[int, GateSlot] | None = None
            if self._needs_gates and group.gating_position >= len(group.prefix):
                gate = (group.gating_position, self._new_slot())
            self._leaves[key] = Leaf(end, suffix, gate)
        return self._leaves[key]

    def _prompt_slot(self, path: Sequence[Node], group: Group) -> GateSlot | None:
        """Return where the gates of a group's prompt are, if they are read within it."""
        position = group.gating_position
        if not self._needs_gates or position >= len(group.prefix):
            return None
        node = next(node for node in path if position < node.end)
        if position not in node.gates:
            node.gates[position] = self._new_slot()
            if node.owner is not self._mark:
                # Where it was computed before, nobody had asked for the gates at that token and
                # its state is gone: it is computed once more.
                self._tree.forget(node)
        return node.gates[position]

    def _new_slot(self) -> GateSlot:
        slot = GateSlot()
        self._new_slots[slot] = None
        return slot


def pack(groups: Sequence[Group]) -> PackedBatch:
    """Return one forward pass over groups alone; candidates in order of the groups."""
    plan = BatchPlan(PrefixTree())
    for group in groups:
        plan.add(group)
    return plan.batch()
