"""Refuses arguments that do not fit together, naming the shapes; nothing here waits for a device.

Values are not looked at: whether a position lies inside the packed batch cannot be known without
a copy to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_INDEX_DTYPES = (torch.int64, torch.int32)


def check_matrix(name: str, tensor: Tensor, *, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuse a tensor that is not a matrix of one of these types with at least one column."""
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must be a matrix with columns, got shape {_shape(tensor)}")
    _check_dtype(name, tensor, dtypes)


def check_weight(name: str, weight: Tensor, *, width: int, width_name: str) -> None:
    """Refuse a weight that is not fp32 or does not take inputs of this width."""
    check_matrix(name, weight, dtypes=(torch.float32,))
    if weight.shape[0] == 0 or weight.shape[1] != width:
        raise ValueError(
            f"{name} has shape {_shape(weight)}, expected (at least 1, {width}) because "
            f"{width_name} is {width} wide"
        )


def check_bias(name: str, bias: Tensor, *, size: int) -> None:
    """Refuse a bias that is not fp32 of this size."""
    if bias.shape != (size,):
        raise ValueError(f"{name} has shape {_shape(bias)}, expected ({size},) as its weight")
    _check_dtype(name, bias, (torch.float32,))


def check_indices(name: str, indices: Tensor) -> None:
    """Refuse anything but a vector of integers."""
    if indices.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {_shape(indices)}")
    _check_dtype(name, indices, _INDEX_DTYPES)


def check_same_device(**tensors: Tensor | None) -> None:
    """Refuse tensors that lie on different devices."""
    devices = {name: str(x.device) for name, x in tensors.items() if x is not None}
    if len(set(devices.values())) > 1:
        raise ValueError(f"arguments lie on different devices: {devices}")


def _check_dtype(name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in dtypes:
        allowed = ", ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected {allowed}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
