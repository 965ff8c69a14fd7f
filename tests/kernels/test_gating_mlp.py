# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.kernels.gating_mlp import gating_mlp

from .cases import DTYPES, NUM_TOKENS, OBJECTIVES, Maker, dtype_name, gate
from .tolerances import assert_matches


def _float64_gates(x_PH: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    layers = list(zip(arguments["weights"], arguments["biases"], strict=True))
    x = x_PH
    for i, (weight, bias) in enumerate(layers):
        x = np.einsum("ph,kh->pk", x, weight.double().numpy()) + bias.double().numpy()
        if i + 1 < len(layers) and arguments["activation"] == "relu":
            x = np.maximum(x, 0.0)
        elif i + 1 < len(layers):
            negative = 1.6732632423543772 * np.expm1(np.minimum(x, 0.0))
            x = 1.0507009873554805 * np.where(x > 0.0, x, negative)
    if arguments["normalisation"] == "softmax":
        x = np.exp(x / arguments["temperature"])
        x = x / x.sum(axis=1, keepdims=True)
    return x * float(arguments["scale"])


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("activation", ["relu", "selu"])
@pytest.mark.parametrize("normalisation", ["softmax", "none"])
def test_gates_match_float64_numpy(
    dtype: torch.dtype, layers: int, activation: str, normalisation: str
) -> None:
    maker = Maker.seeded(layers)
    hidden_TH = maker.normal(NUM_TOKENS, 1024, dtype=dtype)
    arguments = gate(
        maker,
        hidden=1024,
        gate_hidden=129,
        objectives=19,
        layers=layers,
        activation=activation,
        normalisation=normalisation,
    )
    positions = [60, 0, 60, 7]
    gates_PK = gating_mlp(hidden_TH, torch.tensor(positions), **arguments)
    expected_PK = _float64_gates(hidden_TH.double().numpy()[positions], arguments)
    assert_matches(gates_PK, expected_PK, dtype=dtype)


@settings(deadline=None, database=None)
@given(
    prompts=st.integers(0, 12),
    objectives=st.sampled_from(OBJECTIVES),
    temperature=st.floats(0.01, 100.0),
    scale=st.floats(0.1, 10.0),
    seed=st.integers(0, 2**16),
)
def test_gates_lie_on_the_scaled_simplex_for_any_number_of_prompts(
    prompts: int, objectives: int, temperature: float, scale: float, seed: int
) -> None:
    """The released training code normalised over the wrong axis and only 2 rows showed it."""
    maker = Maker.seeded(seed)
    arguments = gate(maker, hidden=9, gate_hidden=7, objectives=objectives, layers=2)
    arguments |= {"temperature": temperature, "scale": torch.tensor([scale])}
    hidden_TH = maker.normal(5, 9)
    gates_PK = gating_mlp(hidden_TH, maker.indices(prompts, below=5), **arguments)
    assert gates_PK.shape == (prompts, objectives)
    assert (gates_PK >= 0.0).all()
    torch.testing.assert_close(
        gates_PK.sum(dim=-1), torch.full((prompts,), scale), rtol=1e-5, atol=0.0
    )


@settings(deadline=None, database=None)
@given(order=st.permutations(range(6)), seed=st.integers(0, 2**16))
def test_order_of_prompts_does_not_matter(order: list[int], seed: int) -> None:
    maker = Maker.seeded(seed)
    arguments = gate(maker, hidden=9, gate_hidden=7, objectives=5, layers=3)
    hidden_TH, positions_P = maker.normal(NUM_TOKENS, 9), maker.indices(6, below=NUM_TOKENS)
    gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    assert_matches(gating_mlp(hidden_TH, positions_P[order], **arguments), gates_PK[order])


def test_temperature_has_no_part_without_normalisation() -> None:
    maker = Maker.seeded(0)
    arguments = gate(maker, hidden=9, gate_hidden=7, objectives=5, layers=2, normalisation="none")
    hidden_TH, positions_P = maker.normal(3, 9), torch.tensor([2, 0])
    cold_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    hot_PK = gating_mlp(hidden_TH, positions_P, **{**arguments, "temperature": 50.0})
    assert torch.equal(cold_PK, hot_PK)
    assert (cold_PK < 0.0).any()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_scale_of_any_one_element_shape_keeps_the_shape_of_the_gates(
    shape: tuple[int, ...],
) -> None:
    maker = Maker.seeded(0)
    arguments = gate(maker, hidden=9, gate_hidden=7, objectives=5, layers=2)
    arguments["scale"] = torch.full(shape, 2.0)
    gates_PK = gating_mlp(maker.normal(3, 9), torch.tensor([2, 0]), **arguments)
    assert_matches(gates_PK.sum(dim=-1), torch.tensor([2.0, 2.0]))


def test_autocast_does_not_lower_the_precision() -> None:
    maker = Maker.seeded(0)
    arguments = gate(maker, hidden=64, gate_hidden=32, objectives=5, layers=3)
    hidden_TH, positions_P = maker.normal(3, 64), torch.tensor([2, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    assert torch.equal(gates_PK, gating_mlp(hidden_TH, positions_P, **arguments))


def test_gradients_reach_every_layer_and_the_scale() -> None:
    maker = Maker.seeded(0)
    arguments = gate(maker, hidden=9, gate_hidden=7, objectives=5, layers=3)
    trained = [*arguments["weights"], *arguments["biases"], arguments["scale"]]
    for tensor in trained:
        tensor.requires_grad_()
    gates_PK = gating_mlp(maker.normal(3, 9), torch.tensor([2, 0]), **arguments)
    gates_PK.square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": []}, "at least one layer .* 0 weights and 2 biases"),
        ({"biases": [torch.zeros(4)]}, "2 weights and 1 biases"),
        (
            {"weights": [torch.zeros(4, 8), torch.zeros(5, 3)]},
            r"weights\[1\] has shape \(5, 3\), expected \(at least 1, 4\) because layer 0 is 4",
        ),
        ({"weights": [torch.zeros(4, 9), torch.zeros(5, 4)]}, r"weights\[0\] .*hidden_TH is 8"),
        ({"biases": [torch.zeros(4), torch.zeros(4)]}, r"biases\[1\] has shape \(4,\)"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"normalisation": "sigmoid"}, "normalisation is 'sigmoid'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"scale": torch.ones(2)}, r"scale has shape \(2,\)"),
        ({"scale": torch.ones(1, dtype=torch.int64)}, "scale has .* dtype torch.int64"),
        ({"scale": torch.ones(1, device="meta")}, "different devices.*'scale': 'meta'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "weights": [torch.zeros(4, 8), torch.zeros(5, 4)],
        "biases": [torch.zeros(4), torch.zeros(5)],
        "activation": "relu",
        "normalisation": "softmax",
        "temperature": 1.0,
        "scale": torch.ones(1),
    }
    with pytest.raises(ValueError, match=message):
        gating_mlp(torch.zeros(3, 8), torch.tensor([0]), **{**arguments, **change})
