"""How far two computations of one op may differ, per dtype of the hidden states, with the reason.

There is one table. Outputs in the tests are of order one, so `atol` decides; `rtol` is for the few
that are larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tolerance:
    rtol: float
    atol: float
    reason: str


TOLERANCES = {
    torch.float32: Tolerance(
        1e-5, 1e-5, "fp32 sums of up to 8192 products in another order: a few 1e-7 each way"
    ),
    torch.float16: Tolerance(
        1e-5, 1e-5, "the input is rounded once, before either side sees it; then as float32"
    ),
    torch.bfloat16: Tolerance(
        1e-5, 1e-5, "the input is rounded once, before either side sees it; then as float32"
    ),
}

# Of ops whose result is rounded to the type of the inputs: one unit of its last place, as the
# interpreter cuts bf16 off where a device rounds, and half a unit of the weights' last place.
ROUNDED_TOLERANCES = {
    torch.float32: TOLERANCES[torch.float32],
    torch.float16: Tolerance(1e-3, 1e-3, "2^-10 of the result; weights 2^-11 of sum(w |v|)"),
    torch.bfloat16: Tolerance(8e-3, 8e-3, "2^-7 of the result; weights 2^-8 of sum(w |v|)"),
}


def assert_matches(
    actual: Tensor, expected: Tensor | np.ndarray, *, dtype: torch.dtype = torch.float32
) -> None:
    """Fail unless `actual` is fp32 and within the table's tolerance; NaN only where expected."""
    assert actual.dtype is torch.float32
    _assert_close(actual, expected, TOLERANCES[dtype])


def assert_matches_rounded(actual: Tensor, expected: Tensor | np.ndarray) -> None:
    """Fail unless `actual`, in the type of its inputs, is within that type's tolerance."""
    _assert_close(actual, expected, ROUNDED_TOLERANCES[actual.dtype])


def _assert_close(actual: Tensor, expected: Tensor | np.ndarray, tolerance: Tolerance) -> None:
    torch.testing.assert_close(
        actual.detach().cpu().double(),
        torch.as_tensor(expected).detach().cpu().double(),
        rtol=tolerance.rtol,
        atol=tolerance.atol,
        equal_nan=True,
    )
