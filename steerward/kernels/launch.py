"""A kernel launch as a value: what is launched can be looked at without launching it.

The launchers build these from the arguments of a call and run them; the compile tests build them
from tensors without storage and compile them. So both see the same blocks and the same types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel with its grid, run-time arguments and compile-time constants."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | float | None]
    constants: dict[str, int | str]
    num_warps: int
    num_stages: int = 3
    """Tiles of a loop that are loaded ahead; 3 is Triton's own default."""


def run(launches: Sequence[Launch], *, device_of: Tensor) -> None:
    """Launch in order on the device and current stream of a tensor, without waiting."""
    with torch.cuda.device_of(device_of):
        for launch in launches:
            launch.kernel[launch.grid](
                **launch.arguments,
                **launch.constants,
                num_warps=launch.num_warps,
                num_stages=launch.num_stages,
            )


def ceil_div(count: int, block: int) -> int:
    """Return how many blocks hold `count` items."""
    return -(-count // block)
