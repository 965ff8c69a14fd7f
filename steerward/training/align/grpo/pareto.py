"""Weights on the simplex that make several objectives' updates small together.

Theorem 1 of PAMA (arXiv:2508.07768): of all weighted means of the advantages of one sample, the
one nearest to 0. The paper gives its value; weights that realise it are ours. Beside it the same
question for vectors, MGDA's: the shortest convex combination, from their products alone.

Axis legend: N samples or tokens, K objectives.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from steerward.protocol.errors import InvalidRequest

Rule = Literal["two_point", "least_norm"]
"""Which weights to choose where signs are mixed, and many weights give 0."""

_MAX_ITERATIONS = 1000
# Of the duality gap, in units of the largest product: float64 holds 16 digits.
_TOLERANCE = 1e-14


def nearest_to_zero(advantages_NK: Tensor) -> Tensor:
    """Return the weighted mean of each row that is nearest to 0, (N,).

    PAMA (arXiv:2508.07768), Theorem 1: 0 projected on ``[min_i A_i, max_i A_i]``, so 0 if the
    signs are mixed, the least if all are positive, the greatest if all are negative.

    Args:
        advantages_NK: Any leading axes; NaN is left out.

    Returns:
        One value a row; NaN where all of it is NaN.
    """
    low_N, high_N = advantages_NK.amin(dim=-1), advantages_NK.amax(dim=-1)
    is_missing_N = low_N.isnan()
    # Both are NaN if one number of a row is: to look again is for rows that have some.
    if bool(is_missing_N.any()):
        is_missing_NK = advantages_NK.isnan()
        low_N = advantages_NK.masked_fill(is_missing_NK, torch.inf).amin(dim=-1)
        high_N = advantages_NK.masked_fill(is_missing_NK, -torch.inf).amax(dim=-1)
        is_missing_N = is_missing_NK.all(dim=-1)
    nearest_N = torch.maximum(low_N, high_N.clamp(max=0))
    return nearest_N.masked_fill(is_missing_N, torch.nan)


def two_objective_weights(advantages_N2: Tensor) -> Tensor:
    """Return the weights of two objectives that realise `nearest_to_zero`, (N, 2).

    ``c_1 = clip(A_2 / (A_2 - A_1), 0, 1)``; one half each if both are equal. Ours, after Theorem 1
    of PAMA (arXiv:2508.07768).
    """
    first_N, second_N = advantages_N2.unbind(dim=-1)
    apart_N = second_N - first_N
    is_equal_N = apart_N == 0
    share_N = (second_N / apart_N.masked_fill(is_equal_N, 1.0)).clamp(0.0, 1.0)
    share_N = share_N.masked_fill(is_equal_N, 0.5)
    return torch.stack([share_N, 1.0 - share_N], dim=-1)


def weights_nearest_to_zero(advantages_NK: Tensor, *, rule: Rule = "least_norm") -> Tensor:
    """Return weights on the simplex that realise `nearest_to_zero`, (N, K).

    All positive: even on the least. All negative: even on the greatest. A zero where the others
    have one sign: even on the zeros. Mixed: by the rule, ``two_point`` on the least and the
    greatest alone, or ``least_norm``, the most even of all that give 0:
    ``c = (mu + nu A)_+`` with ``sum c = 1`` and ``c.A = 0``. Ties share their weight. Ours.

    Args:
        advantages_NK: Finite, two axes.
        rule: What to choose where signs are mixed.

    Raises:
        InvalidRequest: If a number is not finite.
    """
    if not bool(advantages_NK.isfinite().all()):
        raise InvalidRequest(
            "advantages have NaN or infinite numbers, which have no weights; leave out objectives "
            "that do not apply first",
            param="advantages",
        )
    low_N1 = advantages_NK.amin(dim=-1, keepdim=True)
    high_N1 = advantages_NK.amax(dim=-1, keepdim=True)
    weights_NK = _even(advantages_NK == torch.where(low_N1 >= 0, low_N1, high_N1))
    is_mixed_N = ((low_N1 < 0) & (high_N1 > 0))[:, 0]
    # After Noon there are none.
    if bool(is_mixed_N.any()):
        weights_NK[is_mixed_N] = _mixed(advantages_NK[is_mixed_N], rule=rule)
    return weights_NK.to(advantages_NK.dtype)


def _mixed(advantages_NK: Tensor, *, rule: Rule) -> Tensor:
    """Return weights with ``c.A = 0`` of rows with mixed signs, in float64."""
    values_NK = advantages_NK.double()
    # Weights stay the same if a row is scaled; small numbers are then not lost in squares.
    values_NK = values_NK / values_NK.abs().amax(dim=-1, keepdim=True)
    low_N1, high_N1 = values_NK.amin(-1, keepdim=True), values_NK.amax(-1, keepdim=True)
    on_least_NK, on_greatest_NK = _even(values_NK == low_N1), _even(values_NK == high_N1)
    two_point_NK = (on_greatest_NK * -low_N1 + on_least_NK * high_N1) / (high_N1 - low_N1)
    return two_point_NK if rule == "two_point" else _least_norm(values_NK, two_point_NK)


def _even(mask_NK: Tensor) -> Tensor:
    return mask_NK.double() / mask_NK.sum(dim=-1, keepdim=True)


def _least_norm(values_NK: Tensor, otherwise_NK: Tensor) -> Tensor:
    """Return the most even weights with ``c.A = 0`` of rows with mixed signs.

    They fall away from the side that is heavier, so that their support is a prefix of the values
    sorted from the lighter side; of all prefixes it is the longest whose last weight is not
    negative.
    """
    is_heavy_above_N1 = values_NK.sum(dim=-1, keepdim=True) > 0
    sign_N1 = torch.where(is_heavy_above_N1, 1.0, -1.0).double()
    sorted_NK, order_NK = (values_NK * sign_N1).sort(dim=-1)
    count_K = torch.arange(1, values_NK.shape[-1] + 1, dtype=torch.float64, device=values_NK.device)
    sums_NK, squares_NK = sorted_NK.cumsum(dim=-1), sorted_NK.square().cumsum(dim=-1)
    determinant_NK = count_K * squares_NK - sums_NK.square()
    is_solved_NK = (determinant_NK > 0) & (sorted_NK[:, :1] < 0) & (sorted_NK > 0)
    divisor_NK = determinant_NK.masked_fill(~is_solved_NK, 1.0)
    mu_NK, nu_NK = squares_NK / divisor_NK, -sums_NK / divisor_NK
    is_support_NK = is_solved_NK & (mu_NK + nu_NK * sorted_NK >= 0)
    size_N1 = (is_support_NK * count_K).amax(dim=-1, keepdim=True)
    last_N1 = (size_N1.long() - 1).clamp(min=0)
    weights_NK = mu_NK.gather(-1, last_N1) + nu_NK.gather(-1, last_N1) * sorted_NK
    weights_NK = weights_NK.clamp(min=0).masked_fill(count_K > size_N1, 0.0)
    unsorted_NK = torch.zeros_like(weights_NK).scatter(-1, order_NK, weights_NK)
    return torch.where(size_N1 > 0, unsorted_NK, otherwise_NK)


def two_vector_weights(gram_22: Tensor) -> Tensor:
    """Return the weights of the shortest convex combination of two vectors, (2,).

    ``c_1 = clip((a_2 - a_1).a_2 / ||a_1 - a_2||^2, 0, 1)``, MGDA's (arXiv:1810.04650, equation 4).

    Args:
        gram_22: Products ``a_i.a_j``.
    """
    gram_22 = gram_22.double()
    apart = gram_22[0, 0] - 2 * gram_22[0, 1] + gram_22[1, 1]
    share = ((gram_22[1, 1] - gram_22[0, 1]) / apart).clamp(0.0, 1.0)
    share = torch.where(apart > 0, share, torch.full_like(share, 0.5))
    return torch.stack([share, 1.0 - share])


def min_norm_weights(gram_KK: Tensor) -> Tensor:
    """Return the weights of the shortest convex combination of vectors, (K,), in float64.

    ``argmin c'Gc`` on the simplex. Two vectors in closed form; more by Frank-Wolfe with exact
    line search (MGDA, arXiv:1810.04650, algorithm 2), in its pairwise variant: weight moves from
    the worst objective that has any to the best, which converges linearly. Equal vectors share
    their weight evenly. Cost of a step: O(K).

    Args:
        gram_KK: Products ``a_i.a_j``, finite and symmetric.

    Raises:
        InvalidRequest: If a product is not finite.
    """
    if not bool(gram_KK.isfinite().all()):
        raise InvalidRequest(
            "products of the objectives' vectors are NaN or infinite; look for rewards or "
            "gradients that are not finite",
            param="gram",
        )
    num_objectives = len(gram_KK)
    if num_objectives == 2:
        return two_vector_weights(gram_KK)
    gram_KK = gram_KK.double()
    weights_K = torch.full_like(gram_KK[0], 1.0 / num_objectives)
    limit = _TOLERANCE * float(gram_KK.diagonal().amax())
    slopes_K = gram_KK @ weights_K
    for _ in range(_MAX_ITERATIONS):
        best = int(slopes_K.argmin())
        worst = int(slopes_K.masked_fill(weights_K <= 0, -torch.inf).argmax())
        descent = slopes_K[worst] - slopes_K[best]
        if float(descent) <= limit:
            break
        bend = gram_KK[best, best] - 2 * gram_KK[best, worst] + gram_KK[worst, worst]
        step = torch.where(bend > 0, descent / bend, torch.inf).clamp(max=weights_K[worst])
        weights_K[best] += step
        weights_K[worst] -= step
        slopes_K = slopes_K + step * (gram_KK[:, best] - gram_KK[:, worst])
    is_same_KK = (gram_KK[:, None] == gram_KK).all(dim=-1).double()
    weights_K = is_same_KK @ weights_K.clamp(min=0) / is_same_KK.sum(dim=-1)
    return weights_K / weights_K.sum()
