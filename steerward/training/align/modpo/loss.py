"""MODPO (arXiv:2310.03708): preferences of one objective, rewards of the others as margins.

Pure functions of tensors, and what they refuse. The loss, as in the authors' code, with k the
objective that the pairs prefer by:

    logit = (beta / w_k) * D_pi - (1 / w_k) * w_-k . D_r,    loss = -log sigmoid(logit)

where D_pi is the difference of the log-ratios to the reference, chosen less rejected, and D_r
that of the other objectives' rewards. The same, without a loss of its own: DPO with
beta' = beta / w_k and a reference whose log-probabilities are shifted by w_-k . r / beta.

Axis legend: N pairs, K objectives beside that of the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from steerward.protocol.errors import InvalidRequest, UnknownObjective, brief

ALLOWED_LOSSES = ("sigmoid", "hinge", "robust", "exo_pair", "discopop")
"""Of TRL, that read only beta times a difference of summed log-ratios, so that a shift of the
reference is a margin. The first two are the paper's and its code's; the others are ours."""
ADDED_LOSSES = ("sft",)
"""Of TRL, that do not read the reference: they may be added to one of the above."""

_DIVIDES = "divides each log-ratio by its length, and the margin with it"
_SORTS = "sorts log-ratios over the batch, so that margins would come to other pairs"
_ALONE = "reads the log-ratio of one response alone, where the constant of a prompt does not cancel"
REFUSED_LOSSES: Mapping[str, str] = {
    "ipo": _DIVIDES,
    "sigmoid_norm": _DIVIDES,
    "aot": _SORTS,
    "aot_unpaired": _SORTS,
    "nca_pair": _ALONE,
    "bco_pair": _ALONE,
    "sppo_hard": _ALONE,
    "apo_zero": _ALONE,
    "apo_down": _ALONE,
}
"""Losses of TRL that cannot carry margins, with the reason."""
_DIVERGENCE = "reverse_kl"


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Weights of objectives by name; the first is that of the pairs.

    They need not add up to 1, and those of the others may be 0 or negative.

    Raises:
        InvalidRequest: If they do not fit to the names, or one is not allowed.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.weights):
            raise InvalidRequest(
                f"{len(self.weights)} weights for {len(self.names)} objectives; give one each, of "
                "at least one",
                param="weights",
            )
        if len(set(self.names)) < len(self.names):
            raise InvalidRequest("an objective has two weights; name each once", param="weights")
        for name, weight in zip(self.names, self.weights, strict=True):
            if not math.isfinite(weight):
                raise InvalidRequest(
                    f"the weight of {brief(name)!r} is {weight}; give a number", param="weights"
                )
        if self.own <= 0:
            raise InvalidRequest(_why_positive(self.names[0], self.own), param="weights")

    @classmethod
    def of(cls, weights: Mapping[str, float], *, pairs: str) -> Self:
        """Return weights by name, of which one is that of the pairs.

        Raises:
            UnknownObjective: If that has no weight.
            InvalidRequest: If a weight is not allowed.
        """
        if pairs not in weights:
            raise UnknownObjective(
                f"the pairs' objective {brief(pairs)!r} has no weight; the weights are of "
                f"{', '.join(map(brief, weights)) or 'nothing'}",
                param="weights",
            )
        others = tuple(name for name in weights if name != pairs)
        names = (pairs, *others)
        return cls(names, tuple(float(weights[name]) for name in names))

    @property
    def own(self) -> float:
        """w_k: the weight of the pairs' objective."""
        return self.weights[0]

    @property
    def others(self) -> tuple[float, ...]:
        """w_-k: the weights of the margins, in their order."""
        return self.weights[1:]

    @property
    def margin_names(self) -> tuple[str, ...]:
        """Objectives of the margins, in their order."""
        return self.names[1:]

    def beta(self, beta: float) -> float:
        """Return beta' = beta / w_k, which DPO is run with."""
        return beta / self.own


def _why_positive(name: str, weight: float) -> str:
    return (
        f"the weight of the pairs' objective {brief(name)!r} is {weight}, and MODPO divides by it; "
        "give a weight above 0. At 0 the preferences do not count: the policy of that end of the "
        "front is the one that optimises the margins' objectives alone, such as the DPO policy "
        "that the margins come from"
    )


def check_losses(losses: Sequence[str], *, divergence: str = _DIVERGENCE) -> None:
    """Refuse losses of TRL's DPO that cannot carry margins in the reference.

    Args:
        losses: Of `loss_type`.
        divergence: Of `f_divergence_type`.

    Raises:
        InvalidRequest: With the reason.
    """
    allowed = ", ".join(ALLOWED_LOSSES)
    for loss in losses:
        if loss in ALLOWED_LOSSES or loss in ADDED_LOSSES:
            continue
        reason = REFUSED_LOSSES.get(loss, "is not one whose use of the reference is known")
        raise InvalidRequest(
            f"loss_type {brief(loss)!r} cannot be used with MODPO: it {reason}; use one of "
            f"{allowed}",
            param="loss_type",
        )
    if not set(losses) & set(ALLOWED_LOSSES):
        raise InvalidRequest(
            f"loss_type {', '.join(losses) or 'is empty, and'} does not read the reference, so "
            f"margins would do nothing; use one of {allowed}",
            param="loss_type",
        )
    if divergence != _DIVERGENCE:
        raise InvalidRequest(
            f"f_divergence_type {brief(divergence)!r} cannot be used with MODPO: it bends each "
            f"log-ratio, and the margin with it; use {_DIVERGENCE!r}",
            param="f_divergence_type",
        )


def weighted_margins(margins_NK: Tensor, tradeoff: Tradeoff) -> Tensor:
    """Return w_-k . r of each response, float32 or wider.

    Raises:
        InvalidRequest: If there are not as many margins as weights for them.
    """
    if margins_NK.shape[-1] != len(tradeoff.others):
        raise InvalidRequest(
            f"{margins_NK.shape[-1]} margins a response, but weights of {len(tradeoff.others)} "
            f"objectives beside the pairs' ({', '.join(map(brief, tradeoff.margin_names))}); give "
            "one margin for each",
            param="margins",
        )
    wide_NK = margins_NK.to(_wide(margins_NK))
    weights_K = wide_NK.new_tensor(tradeoff.others)
    # With no other objectives it is 0, as an empty sum is.
    return (wide_NK * weights_K).sum(dim=-1)


def shifted_reference(
    reference_N: Tensor, margins_NK: Tensor, *, tradeoff: Tradeoff, beta: float
) -> Tensor:
    """Return log-probabilities ref' = log pi_ref + (w_-k . r) / beta, float32 or wider.

    Margins of tens of nats on log-probabilities of hundreds lose digits in bfloat16.

    Args:
        reference_N: Summed log-probabilities of the responses.
        margins_NK: Rewards of the other objectives.
        tradeoff: Of all objectives.
        beta: Of the paper; DPO is then run with `tradeoff.beta(beta)`.
    """
    return reference_N.to(_wide(reference_N)) + weighted_margins(margins_NK, tradeoff) / beta


def modpo_logits(
    logratio_differences_N: Tensor,
    margin_differences_NK: Tensor,
    *,
    tradeoff: Tradeoff,
    beta: float,
) -> Tensor:
    """Return (beta / w_k) * D_pi - (1 / w_k) * w_-k . D_r of each pair: the formula itself.

    Args:
        logratio_differences_N: D_pi, chosen less rejected.
        margin_differences_NK: D_r, chosen less rejected.
        tradeoff: Of all objectives.
        beta: Of the paper.
    """
    margins_N = weighted_margins(margin_differences_NK, tradeoff)
    return (beta * logratio_differences_N - margins_N) / tradeoff.own


def modpo_losses(logits_N: Tensor, *, loss: Literal["sigmoid", "hinge"] = "sigmoid") -> Tensor:
    """Return the loss of each pair by its logit: -log sigmoid, or relu(1 - logit)."""
    if loss == "hinge":
        return torch.relu(1.0 - logits_N)
    return -functional.logsigmoid(logits_N)


def modpo_rewards(
    logratios_N: Tensor, margins_NK: Tensor, *, tradeoff: Tradeoff, beta: float
) -> Tensor:
    """Return (1 / w_k) * (beta * logratio - w_-k . r): rewards as the authors' code logs them.

    The estimate of r_k up to a constant of the prompt.
    """
    return (beta * logratios_N - weighted_margins(margins_NK, tradeoff)) / tradeoff.own


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
