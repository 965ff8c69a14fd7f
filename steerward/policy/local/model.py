"""Weights that draw tokens: a transformers model, run step by step over the paged cache.

Axis legend: T packed tokens, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerward.policy.local.attention import PromptRun, StepLayout, slot_of
from steerward.policy.local.cache import PagedCache
from steerward.policy.local.scheduler import Step


@dataclass(eq=False, slots=True)
class Weights:
    """A model, or one of its adapters.

    Args:
        model: Owned by the device thread once it is served.
        version: Identity of the weights.
        max_positions: Longest sequence that it computes.
        num_parameters: How many numbers it has, with those of the adapter.
        adapter: Name, inside the model, of the adapter to run with; None: without.
        base_version: Of an adapter: identity of the weights that it adapts.
    """

    model: PreTrainedModel
    version: str
    max_positions: int
    num_parameters: int = 0
    adapter: str | None = None
    base_version: str = ""

    def activate(self) -> None:
        """Let the model run with this adapter, or without."""
        if not getattr(self.model, "_hf_peft_config_loaded", False):
            return
        if self.adapter is None:
            self.model.disable_adapters()
        else:
            self.model.enable_adapters()
            self.model.set_adapter(self.adapter)


@torch.inference_mode()
def compute_step(weights: Weights, cache: PagedCache, step: Step) -> Tensor:
    """Compute a step and return its logits in float32.

    Returns:
        (R, V): a row for each run that ends its prompt, in order, then one for each sample.
    """
    device = weights.model.device
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    runs: list[PromptRun] = []
    rows: list[int] = []
    for run in step.runs:
        prompt = run.prompt
        begin = len(ids)
        ids += prompt.ids[run.begin : run.end]
        positions += range(run.begin, run.end)
        slots += (slot_of(prompt.table, p) for p in range(run.begin, run.end))
        table = torch.tensor([prompt.table], device=device)
        runs.append(PromptRun(begin, len(ids), run.begin, table))
        if run.end == len(prompt.ids):
            rows.append(len(ids) - 1)
    decode_begin = len(ids)
    for sample in step.samples:
        rows.append(len(ids))
        ids.append(sample.tokens[-1])
        positions.append(sample.length - 1)
        slots.append(slot_of(sample.table, sample.length - 1))
    layout = StepLayout(
        cache,
        torch.tensor(slots, device=device),
        runs,
        decode_begin,
        _padded([sample.table for sample in step.samples]).to(device),
        torch.tensor([sample.length for sample in step.samples], device=device),
    )
    if not rows:
        rows = [len(ids) - 1]  # Logits that nobody reads; there is no way to ask for none.
    output = weights.model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        logits_to_keep=torch.tensor(rows, device=device),
        step=layout,
    )
    return output.logits[0].float()


def _padded(tables: Sequence[Sequence[int]]) -> Tensor:
    longest = max((len(table) for table in tables), default=0)
    # With a block of its own: what others hold must not be read, not even to be masked.
    rows = [[*table, *list(table[:1]) * (longest - len(table))] for table in tables]
    return torch.tensor(rows).reshape(len(tables), longest)
