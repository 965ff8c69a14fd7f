"""Losses of MAPL: preferences between responses, between prompts, and between preferences.

MAPL (arXiv:2505.12845) adds instructions that can be checked to prompts. Where the response stays
and the prompt varies, a row is *intra*; where the pair of responses stays and instructions are
added, it is *inter*. Three terms are summed,

    L = L_preference + lambda_intra * L_intra + lambda_inter * L_inter.

Every function takes what the model says of one side of a row, which is either

- the reward of a reward model, r(x, y), or
- the implicit reward of a policy, beta * log[pi(y|x) / pi_ref(y|x)], by `implicit_rewards`.

For a policy, DPO's reward is r(x, y) = beta * log[pi/pi_ref](y|x) + beta * log Z(x). In preference
and inter rows, both responses of a gap share their prompt, so beta * log Z(x) cancels. In intra
rows it does not: Z(x_w) and Z(x_l) belong to two prompts. The loss of the paper, as that of
response-conditioned DPO before it (arXiv:2502.00814), leaves them out; so does this one.

The form of L_inter was not found in public copies of the paper. What is here is derived from its
description, how much more the one response is preferred once instructions are added; see
`inter_losses`. The weights of the terms are not published either: both are 1 here, which is ours.

Axis legend: N rows, R rows with the pairs of inter rows without instructions behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerward.protocol.errors import InvalidRequest

PREFERENCE, INTRA, INTER = range(3)
"""What a row is for, as a number that tensors can hold."""
PARTS = ("preference", "intra", "inter")
"""Their names, in that order."""

LAMBDA_INTRA = 1.0
LAMBDA_INTER = 1.0


def implicit_rewards(logps_N: Tensor, reference_logps_N: Tensor, *, beta: float) -> Tensor:
    """Return what a policy says of completions, beta * log[pi/pi_ref], without beta * log Z.

    Args:
        logps_N: Log-probability of each completion under the policy, summed over its tokens.
        reference_logps_N: The same under the frozen reference policy.
        beta: Of DPO.
    """
    return beta * (logps_N - reference_logps_N)


def preference_losses(chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
    """Return Bradley-Terry's loss of original pairs, -log sigma(r(x, y_w) - r(x, y_l))."""
    return -logsigmoid(chosen_N - rejected_N)


def intra_losses(chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
    """Return the loss of intra rows, -log sigma(r(x_w, y) - r(x_l, y)); section 5.1's form.

    The same formula as for original pairs: what differs is that the two sides share the response
    and not the prompt. For a policy, see the module on what does not cancel.

    Args:
        chosen_N: Of the response behind the prompt whose instructions it follows better.
        rejected_N: Of the same response behind the other prompt.
    """
    return -logsigmoid(chosen_N - rejected_N)


def inter_losses(
    chosen_N: Tensor,
    rejected_N: Tensor,
    *,
    without_chosen_N: Tensor,
    without_rejected_N: Tensor,
    directions_N: Tensor,
) -> Tensor:
    """Return the loss of inter rows, -log sigma(d * (gap(x') - gap(x))), gap = r_w - r_l.

    With d = 1 the instructions that x' adds to x are met by y_w and violated by y_l, so that the
    gap should grow; with d = -1 it is the other way round, and it should shrink. Whatever depends
    on one of the prompts alone cancels in its gap. The nearest published sibling is IOPO
    (arXiv:2411.06208), which has the same four corners.

    Args:
        chosen_N: Of y_w behind x', the prompt with instructions.
        rejected_N: Of y_l behind x'.
        without_chosen_N: Of y_w behind x, the prompt without.
        without_rejected_N: Of y_l behind x.
        directions_N: 1 or -1.
    """
    change_N = (chosen_N - rejected_N) - (without_chosen_N - without_rejected_N)
    return -logsigmoid(directions_N * change_N)


def row_gaps(
    chosen_R: Tensor, rejected_R: Tensor, *, parts_N: Tensor, directions_N: Tensor
) -> Tensor:
    """Return what each row's loss is the logistic loss of, in a batch of rows of all parts.

    The loss of a row is -log sigma of it, by the formulas above, and a model is right about a row
    where it is above 0.

    Args:
        chosen_R: Of the first side of each row, then of y_w behind x for each inter row.
        rejected_R: Of the second side, then of y_l behind x.
        parts_N: PREFERENCE, INTRA or INTER.
        directions_N: 1 or -1 in inter rows; read nowhere else.
    """
    gaps_R = chosen_R - rejected_R
    gaps_N, without_gaps = gaps_R[: len(parts_N)], gaps_R[len(parts_N) :]
    is_inter_N = parts_N == INTER
    changes = directions_N[is_inter_N] * (gaps_N[is_inter_N] - without_gaps)
    return gaps_N.masked_scatter(is_inter_N, changes)


def total_loss(
    preference: Tensor,
    intra: Tensor,
    inter: Tensor,
    *,
    lambda_intra: float = LAMBDA_INTRA,
    lambda_inter: float = LAMBDA_INTER,
) -> Tensor:
    """Return L_preference + lambda_intra * L_intra + lambda_inter * L_inter.

    Args:
        preference: Mean loss of the original pairs.
        intra: Mean loss of the intra rows.
        inter: Mean loss of the inter rows.
        lambda_intra: Ours: the paper's is not published.
        lambda_inter: Ours, too.
    """
    return preference + lambda_intra * intra + lambda_inter * inter


def part_weights(
    counts: Mapping[int, int] | Sequence[int], *, lambda_intra: float, lambda_inter: float
) -> Tensor:
    """Return by how much a row of each part counts in the mean over rows of all parts.

    With weight ``lambda_p * N / N_p`` the mean over all N rows is exactly `total_loss` of the
    means over the N_p rows of each part, however many there are; the mean over a batch of rows
    drawn evenly estimates it without bias.

    Args:
        counts: Rows of each part, by its number.
        lambda_intra: Weight of that part.
        lambda_inter: Weight of that part.

    Raises:
        InvalidRequest: If a weight is negative or no number, or a part that counts has no rows.
    """
    numbers = [counts[part] for part in range(len(PARTS))]
    weights: list[float] = []
    for name, weight, number in zip(PARTS, (1.0, lambda_intra, lambda_inter), numbers, strict=True):
        if not 0 <= weight < float("inf"):
            raise InvalidRequest(
                f"lambda_{name} is {weight}; give a number that is not negative, 0 to leave "
                f"{name} rows out of the loss"
            )
        if weight and not number:
            raise InvalidRequest(
                f"there is no {name} row, and lambda_{name} is {weight}; build {name} rows"
                + ("" if name == PARTS[PREFERENCE] else f", or set lambda_{name} to 0")
            )
        weights.append(weight * sum(numbers) / number if number else 0.0)
    return torch.tensor(weights)
