"""Means, standard deviations and advantages of rewards within their groups.

NaN says that a reward does not apply to a sample: it is left out of every mean and deviation, and
stays NaN. A column that is constant in a group gives exactly 0 there, and not rounding noise over
epsilon. Deviations have ddof 1, and epsilon is added to them, both as in TRL's trainers.

Axis legend: N samples, P prompts, G samples of a group, K objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from steerward.protocol.errors import InvalidRequest

EPSILON = 1e-4
"""Added to a deviation before it divides; TRL's."""

Scaling = Literal["group", "batch", "none"]
"""What divides a reward that is centred in its group: the deviation of the group, that of the
batch, or nothing."""

_SCALINGS: tuple[Scaling, ...] = ("group", "batch", "none")


@dataclass(frozen=True, slots=True)
class GroupMoments:
    """Moments of each column in each group, repeated for each sample of the group."""

    mean_NK: Tensor
    """NaN where no sample of the group has a value."""
    std_NK: Tensor
    """With ddof 1; 0 where fewer than two samples of the group have a value."""
    is_constant_NK: Tensor
    """Whether all values of the group are equal; also where there are none."""


def grouped(values_NK: Tensor, *, group_size: int) -> Tensor:
    """Return values by group, (P, G, K); samples of a group lie next to each other.

    Raises:
        InvalidRequest: If the samples are not a whole number of groups.
    """
    num_samples = len(values_NK)
    if group_size < 1 or num_samples % group_size:
        raise InvalidRequest(
            f"{num_samples} samples are not a whole number of groups of {group_size}; make the "
            "generation batch a multiple of num_generations",
            param="group_size",
        )
    return values_NK.reshape(-1, group_size, values_NK.shape[-1])


def group_moments(values_NK: Tensor, *, group_size: int) -> GroupMoments:
    """Return the moments of each column in each group, without NaN.

    Raises:
        InvalidRequest: If the samples are not a whole number of groups.
    """
    values_PGK = grouped(values_NK, group_size=group_size)
    mean_P1K = values_PGK.nanmean(dim=-2, keepdim=True)
    std_P1K = _std(values_PGK, dim=-2)
    is_missing_PGK = values_PGK.isnan()
    low_P1K = values_PGK.masked_fill(is_missing_PGK, torch.inf).amin(dim=-2, keepdim=True)
    high_P1K = values_PGK.masked_fill(is_missing_PGK, -torch.inf).amax(dim=-2, keepdim=True)
    mean, std, is_constant = (
        part.expand_as(values_PGK).reshape(values_NK.shape)
        for part in (mean_P1K, std_P1K, low_P1K >= high_P1K)
    )
    return GroupMoments(mean, std, is_constant)


def batch_std(values_NK: Tensor) -> Tensor:
    """Return the deviation of each column over the batch, (1, K), without NaN."""
    return _std(values_NK, dim=-2)


def z_scores(values_NK: Tensor, *, group_size: int, epsilon: float = EPSILON) -> Tensor:
    """Return ``(r - mean) / (std + epsilon)`` of each column in its group; NaN stays.

    GRPO (arXiv:2402.03300), section 4.1.2.

    Raises:
        InvalidRequest: If the samples are not a whole number of groups.
    """
    return group_advantages(values_NK, group_size=group_size, epsilon=epsilon)


def group_advantages(
    values_NK: Tensor,
    *,
    group_size: int,
    scaling: Scaling | Sequence[Scaling] = "group",
    epsilon: float = EPSILON,
) -> Tensor:
    """Return each column centred in its group and divided as asked; NaN stays.

    Args:
        values_NK: Raw rewards.
        group_size: G.
        scaling: What divides: one for all columns, or one for each in their order.
        epsilon: Added to the deviation.

    Raises:
        InvalidRequest: If the samples are not a whole number of groups, or a scaling is unknown.
    """
    moments = group_moments(values_NK, group_size=group_size)
    num_columns = values_NK.shape[-1]
    scalings = [scaling] * num_columns if isinstance(scaling, str) else list(scaling)
    _check_scalings(scalings, num_columns=num_columns)
    divisors = {
        "group": moments.std_NK + epsilon,
        "batch": (batch_std(values_NK) + epsilon).expand_as(values_NK),
        "none": torch.ones_like(values_NK),
    }
    divisor_NK = torch.stack([divisors[one][:, k] for k, one in enumerate(scalings)], dim=-1)
    advantages_NK = (values_NK - moments.mean_NK) / divisor_NK
    is_nothing_NK = moments.is_constant_NK & ~values_NK.isnan()
    return advantages_NK.masked_fill(is_nothing_NK, 0.0)


def whitened(values_N: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """Return values of a batch with mean 0 and deviation 1, without NaN, which stays."""
    return z_scores(values_N[:, None], group_size=max(len(values_N), 1), epsilon=epsilon)[:, 0]


def leave_one_out(values_N: Tensor, *, group_size: int) -> Tensor:
    """Return values less the mean of the others in their group: RLOO (arXiv:2402.14740).

    0 where there are no others, or no value.
    """
    values_PG = grouped(values_N[:, None], group_size=group_size)[:, :, 0]
    others_P1 = (~values_PG.isnan()).sum(dim=-1, keepdim=True) - 1
    baselines_PG = (values_PG.nansum(dim=-1, keepdim=True) - values_PG) / others_P1
    centred_N = (values_PG - baselines_PG).reshape(-1)
    return centred_N.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _std(values: Tensor, *, dim: int) -> Tensor:
    """Return the deviation along an axis, which is kept; 0 of fewer than two values."""
    mean = values.nanmean(dim=dim, keepdim=True)
    variance = ((values - mean) ** 2).nanmean(dim=dim, keepdim=True)
    count = (~values.isnan()).sum(dim=dim, keepdim=True).to(values.dtype)
    # In this order, as TRL does: the tensors are then equal bit for bit.
    variance = variance * (count / (count - 1).clamp(min=1))
    return torch.where(count > 1, variance.sqrt(), torch.zeros_like(variance))


def _check_scalings(scalings: Sequence[str], *, num_columns: int) -> None:
    if len(scalings) != num_columns:
        raise InvalidRequest(
            f"{len(scalings)} scalings were given for {num_columns} columns; give one for each, "
            "in their order, or one for all",
            param="scaling",
        )
    unknown = sorted(set(scalings) - set(_SCALINGS))
    if unknown:
        raise InvalidRequest(
            f"scaling {unknown[0]!r} is unknown; it is one of {', '.join(_SCALINGS)}",
            param="scaling",
        )
