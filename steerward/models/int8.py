"""Linear layers in int8 on a CPU: weights rounded once, inputs token by token as they come.

Scales are symmetric, one for each output channel of a weight and one for each token. A token's
scale depends on nothing but the token, so a score still does not depend on its batch; products
are summed as integers, exactly. Rounding is about a hundredth of what a layer gives: approximate,
and off by default.

Axis legend: T tokens, I input channels, O output channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGEST = 127.0
# Rows of only zeros have no scale of their own.
_LEAST_SCALE = 1e-30


class RoundedInputs:
    """The input that was rounded last.

    Maps side by side, such as those to queries, keys and values, get the same one.
    """

    def __init__(self) -> None:
        self._source: Tensor | None = None
        self._rounded: tuple[Tensor, Tensor] | None = None

    def of(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return int8 rows (T, I) and their scales (T, 1)."""
        if self._rounded is None or self._source is not inputs:
            rows_TI = inputs.reshape(-1, inputs.shape[-1])
            scale_T1 = rows_TI.abs().amax(dim=-1, keepdim=True).clamp_min(_LEAST_SCALE) / _LARGEST
            rounded_TI = rows_TI.mul(scale_T1.reciprocal()).round_().to(torch.int8)
            self._source, self._rounded = inputs, (rounded_TI, scale_T1)
        return self._rounded

    def forget(self) -> None:
        """Let go of the last input."""
        self._source = self._rounded = None


class Int8Linear(nn.Module):
    """A linear map whose weights and inputs are rounded to int8.

    Args:
        linear: In float32.
        inputs: Shared by the maps of one backbone.
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear, inputs: RoundedInputs) -> None:
        super().__init__()
        weight_OI = linear.weight.detach().float()
        scale_O = weight_OI.abs().amax(dim=-1).clamp_min(_LEAST_SCALE) / _LARGEST
        rounded_OI = (weight_OI / scale_O[:, None]).round_().to(torch.int8)
        self.weight = nn.Parameter(rounded_OI, requires_grad=False)
        self.scale = nn.Parameter(scale_O, requires_grad=False)
        self.bias = linear.bias
        self._inputs = inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mapped inputs in float32."""
        rows_TI, scale_T1 = self._inputs.of(inputs)
        products_TO = torch.ops.aten._int_mm(rows_TI, self.weight.T)
        outputs_TO = (products_TO * scale_T1).mul_(self.scale)
        if self.bias is not None:
            outputs_TO += self.bias
        return outputs_TO.reshape(*inputs.shape[:-1], -1)


def round_linears(model: nn.Module) -> None:
    """Put int8 layers in place of all linear layers of a model in float32."""
    inputs = RoundedInputs()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child, inputs))
    model.register_forward_hook(lambda *_: inputs.forget())
