"""Seeded inputs for the three ops, and the block in which a kernel has to run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerward.kernels.dispatch import Backend, override

NUM_TOKENS = 61
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OBJECTIVES = (1, 2, 10, 19, 23)
ROWS = (0, 1, 7, 33)


def dtype_name(value: Any) -> str | None:
    """Return a short test id for a dtype, and leave other parameters to pytest."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes tensors on one device from one seed; the same values on every device."""

    device: str
    generator: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: str = "cpu") -> Maker:
        return cls(device, torch.Generator().manual_seed(seed))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(dtype).to(self.device)

    def weight(self, outputs: int, width: int) -> Tensor:
        """Return a weight that keeps products of order one, whatever the width."""
        return self.normal(outputs, width) / width**0.5

    def indices(self, count: int, *, below: int) -> Tensor:
        return torch.randint(below, (count,), generator=self.generator).to(self.device)


def gate(
    maker: Maker,
    *,
    hidden: int,
    gate_hidden: int,
    objectives: int,
    layers: int,
    activation: str = "relu",
    normalisation: str = "softmax",
) -> dict[str, Any]:
    """Return the keyword arguments of a gate with this many layers."""
    widths = [hidden, *[gate_hidden] * (layers - 1), objectives]
    return {
        "weights": [maker.weight(o, i) for i, o in itertools.pairwise(widths)],
        "biases": [maker.normal(o) for o in widths[1:]],
        "activation": activation,
        "normalisation": normalisation,
        "temperature": 0.7,
        "scale": torch.tensor([1.3], device=maker.device),
    }


def on_cpu(value: Any) -> Any:
    """Return the same arguments on the CPU, where the reference is computed."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, list):
        return [on_cpu(item) for item in value]
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    return value


@contextlib.contextmanager
def kernel_path(op: str) -> Iterator[None]:
    """Run the block on Triton with fresh memory filled with NaN; fail if `op` took another path."""
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # this is what makes torch.empty hold NaN
    try:
        assert torch.empty(3).isnan().all()
        with override(Backend.TRITON) as choices:
            yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    assert choices
    assert set(choices) == {(op, Backend.TRITON)}
