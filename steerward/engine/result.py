"""From the output of a batch to the futures of its items.

Axis legend: N candidates of a batch, P its prompts, K objectives.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from steerward.engine.items import Chunk, ItemOutput, ScoringItem
from steerward.models.output import RewardOutput
from steerward.models.plan import Placement
from steerward.protocol.errors import NonFiniteScore, SteerwardError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The output of a batch in host memory, and when it ran."""

    output: RewardOutput
    """With gates and coefficients for each candidate."""
    non_finite: frozenset[int]
    """Rows of candidates with NaN or infinite numbers."""
    gates_are_per_prompt: bool
    started_at: float
    finished_at: float


def answer(item: ScoringItem, result: ItemOutput | SteerwardError) -> None:
    """Resolve an item's future on its own loop; later answers to the same item are dropped."""

    def resolve() -> None:
        if item.future.done():
            return
        if isinstance(result, SteerwardError):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)

    if isinstance(result, SteerwardError):
        item.is_cancelled = True  # Its other chunks need not run.
    try:
        item.future.get_loop().call_soon_threadsafe(resolve)
    except RuntimeError:
        # The loop has been closed: whoever waited there is gone with it.
        logger.debug("an item's event loop was closed before its result came")


def deliver(chunk: Chunk, placement: Placement, result: BatchResult) -> None:
    """Add a chunk's rows to its item; answer the item when it is whole, or broken."""
    item = chunk.item
    for row in range(placement.rows.start, placement.rows.stop):
        if row in result.non_finite:
            answer(item, _non_finite(chunk.first_candidate + row - placement.first))
            return
    item.parts[chunk.first_candidate] = _part(item, placement, result)
    if len(item.parts) == item.num_chunks:
        answer(item, _joined(item))


def _part(item: ScoringItem, placement: Placement, result: BatchResult) -> ItemOutput:
    if item.started_at is None:
        item.started_at = result.started_at
    output, rows = result.output, placement.rows

    def of_item(per_candidate_NK: Tensor | None) -> Tensor | None:
        """Return gates or coefficients: one row if the whole item shares it, else one each."""
        if per_candidate_NK is None:
            return None
        if result.gates_are_per_prompt and item.has_one_prompt:
            return per_candidate_NK[placement.first]
        return per_candidate_NK[rows]

    return ItemOutput(
        rewards_GK=output.rewards_NK[rows],
        scores_G=None if output.scores_N is None else output.scores_N[rows],
        gates=of_item(output.gates),
        coefficients=of_item(output.coefficients),
        tokens_saved=placement.tokens_saved,
        tokens_cached=placement.tokens_cached,
        queue_s=item.started_at - item.enqueued_at,
        inference_s=result.finished_at - item.started_at,
    )


def _joined(item: ScoringItem) -> ItemOutput:
    """Return the parts of an item as one, candidates in request order."""
    parts = [item.parts[first_candidate] for first_candidate in sorted(item.parts)]
    first = parts[0]
    if len(parts) == 1:
        return first
    per_candidate = first.coefficients is not None and first.coefficients.dim() > 1
    scores = [part.scores_G for part in parts if part.scores_G is not None]
    gates = [part.gates for part in parts if part.gates is not None]
    coefficients = [part.coefficients for part in parts if part.coefficients is not None]
    return ItemOutput(
        rewards_GK=torch.cat([part.rewards_GK for part in parts]),
        scores_G=torch.cat(scores) if scores else None,
        gates=torch.cat(gates) if per_candidate else first.gates,
        coefficients=torch.cat(coefficients) if per_candidate else first.coefficients,
        tokens_saved=sum(part.tokens_saved for part in parts),
        # Later chunks of one prompt find what the first has left.
        tokens_cached=first.tokens_cached
        if item.has_one_prompt
        else sum(part.tokens_cached for part in parts),
        queue_s=first.queue_s,
        inference_s=max(part.inference_s for part in parts),
    )


def _non_finite(candidate: int) -> NonFiniteScore:
    return NonFiniteScore(
        "a reward came out as NaN or infinity, so there is no score; if other texts do the same, "
        "the checkpoint overflows in this dtype: try --dtype float32",
        param=f"candidates[{candidate}]",
    )
