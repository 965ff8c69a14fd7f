"""How the objectives' gradients lie to each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.diagnostics import (
    diagnose,
    flat_gradients,
    objective_losses,
    probed_parameters,
)


def test_opposite_gradients_are_stationary_and_in_conflict() -> None:
    found = diagnose(torch.tensor([[1.0, 0.0], [-3.0, 0.0]]))
    assert found.min_norm == pytest.approx(0.0, abs=1e-9)
    assert found.lowest_cosine == pytest.approx(-1.0)
    assert found.weights_K.tolist() == pytest.approx([0.75, 0.25])


def test_orthogonal_gradients_have_a_common_improvement() -> None:
    found = diagnose(torch.eye(2))
    assert found.min_norm == pytest.approx(0.5**0.5)
    assert found.lowest_cosine == pytest.approx(0.0)


def test_objective_without_a_gradient_is_left_out() -> None:
    found = diagnose(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    assert found.min_norm == pytest.approx(2.0)
    assert found.weights_K.tolist() == [0.0, 1.0]
    assert diagnose(torch.zeros(2, 3)).min_norm == 0.0


def test_gradients_are_those_of_autograd_and_grad_is_left_alone() -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(3, 4), torch.randn(5, 3)
    advantages_NK = torch.tensor([[1.0, float("nan")], [0.0, 2.0], [-1.0, 1.0], [2.0, 0.0], [0, 0]])
    mask_NT = torch.ones(5, 4)
    mask_NT[2, 1:] = 0
    logps_NT = layer(inputs)
    ratios_NT = torch.rand(5, 4)
    losses = objective_losses(advantages_NK, logps_NT, mask_NT=mask_NT, ratios_NT=ratios_NT)
    found_KD = flat_gradients(losses, list(layer.parameters()))
    assert layer.weight.grad is None
    for k in range(2):
        layer.zero_grad()
        column_N1 = advantages_NK[:, k : k + 1].nan_to_num(nan=0.0)
        (-(column_N1 * layer(inputs) * mask_NT * ratios_NT).sum() / 5).backward()
        parts = [one.grad.flatten() for one in layer.parameters() if one.grad is not None]
        assert torch.allclose(found_KD[k], torch.cat(parts), atol=1e-6)


def test_adapter_or_last_layer_is_measured() -> None:
    stack = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model = nn.ModuleDict({"layers": stack, "head": nn.Linear(2, 2)})
    probed = probed_parameters(model)
    assert [id(one) for one in probed] == [id(one) for one in stack[1].parameters()]
    stack[0].register_parameter("lora_A", nn.Parameter(torch.zeros(1)))
    assert [id(one) for one in probed_parameters(model)] == [id(stack[0].lora_A)]
    with pytest.raises(InvalidRequest, match="diagnostic_every=0"):
        probed_parameters(nn.Linear(2, 2))
