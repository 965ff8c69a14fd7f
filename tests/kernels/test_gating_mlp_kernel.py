# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

from typing import Any

import pytest
import torch

from steerward.kernels.gating_mlp import gating_mlp, kernel
from steerward.kernels.gating_mlp.reference import gating_mlp as reference

from .cases import (
    DTYPES,
    NUM_TOKENS,
    OBJECTIVES,
    ROWS,
    Maker,
    dtype_name,
    gate,
    kernel_path,
    on_cpu,
)
from .tolerances import assert_matches


def _check(hidden_TH: torch.Tensor, positions_P: torch.Tensor, arguments: dict[str, Any]) -> None:
    with kernel_path("gating_mlp"):
        gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    expected_PK = reference(on_cpu(hidden_TH), on_cpu(positions_P), **on_cpu(arguments))
    assert_matches(gates_PK, expected_PK, dtype=hidden_TH.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_any_number_of_layers_matches_the_reference(
    device: str, dtype: torch.dtype, layers: int
) -> None:
    maker = Maker.seeded(layers, device)
    arguments = gate(maker, hidden=65, gate_hidden=17, objectives=19, layers=layers)
    hidden_TH = maker.normal(NUM_TOKENS, 65, dtype=dtype)
    _check(hidden_TH, maker.indices(7, below=NUM_TOKENS), arguments)


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("rows", ROWS)
def test_any_number_of_prompts_and_objectives_matches_the_reference(
    device: str, objectives: int, rows: int
) -> None:
    maker = Maker.seeded(rows, device)
    arguments = gate(maker, hidden=33, gate_hidden=9, objectives=objectives, layers=2)
    hidden_TH = maker.normal(NUM_TOKENS, 33, dtype=torch.bfloat16)
    _check(hidden_TH, maker.indices(rows, below=NUM_TOKENS), arguments)


@pytest.mark.parametrize("activation", ["relu", "selu"])
@pytest.mark.parametrize("normalisation", ["softmax", "none"])
def test_every_option_matches_the_reference(
    device: str, activation: str, normalisation: str
) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(
        maker,
        hidden=33,
        gate_hidden=9,
        objectives=5,
        layers=3,
        activation=activation,
        normalisation=normalisation,
    )
    arguments["scale"] = arguments["scale"].to(torch.bfloat16).reshape(())
    _check(maker.normal(9, 33), maker.indices(5, below=9), arguments)


@pytest.mark.parametrize(("hidden", "gate_hidden"), [(1, 1), (1025, 3), (5, 1031), (4096, 8)])
def test_any_width_matches_the_reference(device: str, hidden: int, gate_hidden: int) -> None:
    maker = Maker.seeded(hidden, device)
    arguments = gate(maker, hidden=hidden, gate_hidden=gate_hidden, objectives=3, layers=2)
    hidden_TH = maker.normal(9, hidden, dtype=torch.float16)
    _check(hidden_TH, maker.indices(2, below=9), arguments)


def test_strided_arguments_match_the_reference(device: str) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(maker, hidden=33, gate_hidden=9, objectives=5, layers=2)
    arguments["weights"][0] = maker.weight(33, 9).T
    arguments["biases"][1] = maker.normal(10)[::2]
    positions_P = maker.indices(14, below=NUM_TOKENS).int()[::2]
    _check(maker.normal(NUM_TOKENS, 50)[:, 4:37], positions_P, arguments)
    _check(maker.normal(33, NUM_TOKENS).T, positions_P, arguments)


def test_large_logits_neither_overflow_nor_lose_the_simplex(device: str) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(maker, hidden=33, gate_hidden=9, objectives=5, layers=1)
    arguments["temperature"] = 1e-3
    _check(100.0 * maker.normal(9, 33), maker.indices(5, below=9), arguments)


def test_gates_of_a_prompt_are_the_same_alone_and_in_a_batch(device: str) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(maker, hidden=1500, gate_hidden=17, objectives=19, layers=3)
    hidden_TH, positions_P = maker.normal(NUM_TOKENS, 1500), maker.indices(7, below=NUM_TOKENS)
    with kernel_path("gating_mlp"):
        gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
        for position, gates_K in zip(positions_P, gates_PK, strict=True):
            alone_PK = gating_mlp(hidden_TH, position.reshape(1).clone(), **arguments)
            assert torch.equal(alone_PK[0], gates_K)


@pytest.mark.parametrize("layers", [1, 3])
def test_position_outside_the_batch_gives_nan_for_that_prompt_only(
    device: str, layers: int
) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(maker, hidden=33, gate_hidden=9, objectives=5, layers=layers)
    hidden_TH = maker.normal(5, 33)
    positions_P = torch.tensor([4, 5, 0, -1], device=device)
    with kernel_path("gating_mlp"):
        gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    assert gates_PK[[1, 3]].isnan().all()
    expected_PK = reference(hidden_TH.cpu(), torch.tensor([4, 0]), **on_cpu(arguments))
    assert_matches(gates_PK[[0, 2]], expected_PK)


@pytest.mark.parametrize("activation", ["relu", "selu"])
@pytest.mark.parametrize("normalisation", ["softmax", "none"])
def test_nan_passes_through_every_layer(device: str, activation: str, normalisation: str) -> None:
    maker = Maker.seeded(0, device)
    arguments = gate(
        maker,
        hidden=33,
        gate_hidden=9,
        objectives=4,
        layers=3,
        activation=activation,
        normalisation=normalisation,
    )
    hidden_TH = maker.normal(4, 33)
    hidden_TH[1, 7] = float("nan")
    positions_P = torch.arange(4, device=device)
    _check(hidden_TH, positions_P, arguments)
    with kernel_path("gating_mlp"):
        gates_PK = gating_mlp(hidden_TH, positions_P, **arguments)
    assert gates_PK[1].isnan().all()
    assert gates_PK[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("prompts", [0, 1, 300])
def test_one_launch_per_layer(layers: int, prompts: int) -> None:
    meta = Maker("meta", torch.Generator())
    arguments = gate(meta, hidden=64, gate_hidden=32, objectives=19, layers=layers)
    planned, _ = kernel.plan(meta.normal(9, 64), meta.indices(prompts, below=9), **arguments)
    assert len(planned) == (layers if prompts else 0)
