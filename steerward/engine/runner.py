"""Forward passes of one model: planned on the host, run on the device, read by one copy.

Used by the device thread only, but for `cached_bytes`.

Axis legend: N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from steerward.engine.items import Chunk
from steerward.models.output import RewardOutput
from steerward.models.packing import Group, PackedBatch
from steerward.models.plan import Placement
from steerward.models.prefix_tree import LEAST_SHARED, WHOLE, PrefixTree
from steerward.models.reward_model import RewardModel

# Two candidates behind a short prompt: exercises prefix, suffixes, heads and gate.
_PROBE = Group((1, 2, 3), [(4, 5), (6,)], gating_position=2)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A forward pass that is laid out and waits for the device."""

    chunks: list[Chunk]
    placements: list[Placement]
    batches: list[PackedBatch]
    """One; in deterministic mode one for each prompt and each candidate."""
    rows: list[int] | None
    """In deterministic mode: row of each candidate among those of the batches."""
    gate_rows_N: Tensor | None
    """Else: row of each candidate in the gates, in host memory."""

    @property
    def num_tokens(self) -> int:
        """Tokens computed."""
        return sum(batch.num_tokens for batch in self.batches)

    @property
    def num_text_tokens(self) -> int:
        """Tokens of these that belong to a text."""
        return sum(batch.layout.num_queries for batch in self.batches)


class Runner:
    """Plans and runs forward passes.

    Args:
        model: Used by nobody else while this runs.
        prefix_cache_bytes: Most memory of keys and values of prompts to keep between passes.
        deterministic: Compute each prompt and each candidate by itself, so that scores are the
            same to the bit whatever else is scored.
    """

    def __init__(self, model: RewardModel, *, prefix_cache_bytes: int, deterministic: bool) -> None:
        self._model = model
        self._is_deterministic = deterministic
        least_shared = WHOLE if deterministic else LEAST_SHARED
        self._bytes_per_token = model.backbone.bytes_per_token
        capacity_tokens = prefix_cache_bytes // self._bytes_per_token
        self._tree = PrefixTree(capacity_tokens=capacity_tokens, least_shared=least_shared)
        self._weight_version = model.weight_version

    @property
    def cached_bytes(self) -> int:
        """Memory that prompts kept between passes hold."""
        return self._tree.num_tokens * self._bytes_per_token

    @property
    def overlaps(self) -> bool:
        """Whether the device works while the host goes on."""
        return self._model.device.type != "cpu"

    @property
    def gates_are_per_prompt(self) -> bool:
        """Whether candidates of one prompt share their gates."""
        return self._model.gates_are_per_prompt

    def cost(self, group: Group) -> int:
        """Return how many tokens a pass would compute for a group by itself."""
        return self._model.plan(self._tree).cost(group)

    def prepare(self, chunks: list[Chunk]) -> Prepared:
        """Lay out the forward pass of chunks."""
        if not self._tree.keeps or self._weight_version != self._model.weight_version:
            self.forget()
        plan = self._model.plan(self._tree)
        placements = [plan.add(chunk.group) for chunk in chunks]
        device = self._model.device
        if self._is_deterministic:
            batches = [batch.to(device) for batch in plan.batches()]
            return Prepared(chunks, placements, batches, plan.leaf_rows(), None)
        batch = plan.batch()
        gate_rows_N = self._model.gate_rows(batch)
        return Prepared(chunks, placements, [batch.to(device)], None, gate_rows_N)

    def run(self, prepared: Prepared) -> RewardOutput:
        """Return the output on the device, without waiting for it.

        Passes must run in the order in which they were planned.
        """
        if prepared.rows is not None:
            return self._model.forward_apart(prepared.batches)
        return self._model(prepared.batches[0])

    def read(self, prepared: Prepared, output: RewardOutput) -> RewardOutput:
        """Return the output in host memory, gates and coefficients by candidate."""
        output = output.to_host()
        if prepared.rows is not None:
            return output.rows(prepared.rows)
        assert prepared.gate_rows_N is not None
        return output.by_candidate(prepared.gate_rows_N)

    def probe(self) -> None:
        """Run a tiny batch through everything, and forget what passes before have kept."""
        self.forget()
        self._model.score([_PROBE])

    def forget(self) -> None:
        """Keep nothing of the passes before."""
        self._tree.clear()
        self._weight_version = self._model.weight_version
