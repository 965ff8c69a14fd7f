"""Picks the reference or the Triton kernel for one call, from its tensors.

The reference runs on the CPU, and on any device when a gradient is needed, because the kernels
have no backward pass. The kernels run on CUDA otherwise. No environment variable and no global
switch changes that; `override` does, for tests, in the thread that enters it.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor


class Backend(enum.Enum):
    """The two implementations of an op."""

    REFERENCE = "reference"
    TRITON = "triton"


@dataclass(frozen=True, slots=True)
class _Override:
    backend: Backend | None
    choices: list[tuple[str, Backend]] = field(default_factory=list)


_override: ContextVar[_Override | None] = ContextVar("steerward_kernel_override", default=None)
# Triton has wheels for Linux only; elsewhere the reference serves CUDA too.
_HAS_TRITON = importlib.util.find_spec("triton") is not None


def choose(op: str, *tensors: Tensor | None) -> Backend:
    """Return the implementation that a call of `op` on these tensors runs.

    Args:
        op: Name of the op, recorded by `override`.
        tensors: Every tensor of the call that may need a gradient; the first one's device counts.

    Raises:
        RuntimeError: If an override asks for Triton where a gradient is needed.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in present)
    override_now = _override.get()
    forced = override_now.backend if override_now is not None else None
    if forced is Backend.TRITON and needs_gradient:
        raise RuntimeError(
            f"{op} was overridden to Triton, but an argument requires a gradient and the kernels "
            "have no backward pass; call it under torch.no_grad() or without the override"
        )
    if forced is not None:
        backend = forced
    elif present[0].is_cuda and not needs_gradient and _HAS_TRITON:
        backend = Backend.TRITON
    else:
        backend = Backend.REFERENCE
    if override_now is not None:
        override_now.choices.append((op, backend))
    return backend


@contextlib.contextmanager
def override(backend: Backend | None) -> Iterator[list[tuple[str, Backend]]]:
    """Force every op inside the block to `backend`, and yield what ran; for tests.

    ``None`` forces nothing and only records. Triton on CPU tensors needs a process that was
    started with Triton's interpreter.
    """
    current = _Override(backend)
    token = _override.set(current)
    try:
        yield current.choices
    finally:
        _override.reset(token)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast leaves a reference in fp32, as the kernels always are.

    A score computed in a mixed-precision training loop is then the score that is served. It does
    not touch the process-wide TF32 switch, which is off unless the caller turned it on.
    """
    return torch.autocast(tensor.device.type, enabled=False)
