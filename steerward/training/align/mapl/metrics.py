"""What is logged of a batch in which rows of several parts stand together, by part.

TRL's own numbers would mix the parts, and its gathering needs as many conversations in every
process, where rows of different parts have two or four.

Axis legend: N rows, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def pair_means(
    values: Mapping[str, Tensor], *, parts_N: Tensor, gather: Gather
) -> dict[str, float]:
    """Return the mean of each value over the original pairs of all processes; none without pairs.

    Args:
        values: Of the rows, by name; what they are of rows of other parts does not matter.
        parts_N: Of the rows.
        gather: Puts tensors of all processes behind each other.
    """
    is_pair_N = parts_N == PREFERENCE
    kept = [value_N.detach()[is_pair_N].float().sum() for value_N in values.values()]
    totals = gather(torch.stack([*kept, is_pair_N.sum().float()])[None]).sum(dim=0).tolist()
    count = totals.pop()
    if not count:
        return {}
    return {name: total / count for name, total in zip(values, totals, strict=True)}


def of_pairs(found: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Return what is logged of original pairs once more, by the names that TRL has for it.

    Args:
        found: By part, as `part_metrics` gives it.
        names: TRL's, by ours.
    """
    own = {theirs: f"{PARTS[PREFERENCE]}/{name}" for name, theirs in names.items()}
    return {theirs: found[name] for theirs, name in own.items() if name in found}
