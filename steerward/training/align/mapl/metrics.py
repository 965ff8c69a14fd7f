"""What is logged of a batch in which rows of several parts stand together, by part.

Axis legend: N rows, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor

from steerward.training.align.mapl.loss import PARTS, PREFERENCE

Gather = Callable[[Tensor], Tensor]


def part_metrics(
    losses_N: Tensor, gaps_N: Tensor, *, parts_N: Tensor, gather: Gather
) -> dict[str, float]:
    """Return loss, accuracy and margin of each part that is in the batch, over all processes.

    Args:
        losses_N: Before they are weighted.
        gaps_N: What each row's loss is the logistic loss of; above 0 is right.
        parts_N: Of the rows.
        gather: Puts tensors of all processes behind each other.
    """
    is_part_PN = torch.stack([parts_N == part for part in range(len(PARTS))])
    values = (losses_N, (gaps_N > 0).float(), gaps_N, torch.ones_like(gaps_N))
    sums = torch.stack([(is_part_PN * one.detach()).sum(dim=-1) for one in values], dim=-1)
    found: dict[str, float] = {}
    totals = gather(sums[None]).sum(dim=0).tolist()
    for name, (loss, right, margin, count) in zip(PARTS, totals, strict=True):
        if count:
            found[f"{name}/loss"] = loss / count
            found[f"{name}/accuracy"] = right / count
            found[f"{name}/margin"] = margin / count
    return found


def replace_last(
    metrics: MutableMapping[str, list[float]],
    found: MutableMapping[str, float],
    *,
    trl: dict[str, str],
) -> None:
    """Log metrics by part, and TRL's own about pairs for original pairs alone.

    TRL took every two sequences for a pair, whatever they are.

    Args:
        metrics: TRL's, by name, to which it has just appended.
        found: By part.
        trl: Its name for each of ours about pairs.
    """
    for name, theirs in trl.items():
        metrics[theirs].pop()
        value = found.get(f"{PARTS[PREFERENCE]}/{name}")
        if value is not None:
            metrics[theirs].append(value)
        elif not metrics[theirs]:
            del metrics[theirs]
    for name, value in found.items():
        metrics[name].append(value)
