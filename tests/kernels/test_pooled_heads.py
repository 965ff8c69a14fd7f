# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.kernels.pooled_heads import pooled_heads

from .cases import DTYPES, NUM_TOKENS, OBJECTIVES, Maker, dtype_name
from .tolerances import assert_matches


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("has_bias", [False, True], ids=["plain", "bias"])
def test_rewards_match_float64_numpy(dtype: torch.dtype, objectives: int, has_bias: bool) -> None:
    maker = Maker.seeded(objectives)
    hidden_TH = maker.normal(NUM_TOKENS, 4096, dtype=dtype)
    weight_KH = maker.weight(objectives, 4096)
    bias_K = maker.normal(objectives) if has_bias else None
    positions = [5, 60, 0, 5]
    expected_NK = np.stack(
        [hidden_TH[p].double().numpy() @ weight_KH.double().numpy().T for p in positions]
    )
    if bias_K is not None:
        expected_NK = expected_NK + bias_K.double().numpy()
    rewards_NK = pooled_heads(hidden_TH, torch.tensor(positions), weight_KH, bias_K)
    assert_matches(rewards_NK, expected_NK, dtype=dtype)


@settings(deadline=None, database=None)
@given(order=st.permutations(range(9)), seed=st.integers(0, 2**16))
def test_order_of_candidates_does_not_matter(order: list[int], seed: int) -> None:
    maker = Maker.seeded(seed)
    hidden_TH, weight_KH = maker.normal(NUM_TOKENS, 33), maker.weight(5, 33)
    positions_N = maker.indices(9, below=NUM_TOKENS)
    rewards_NK = pooled_heads(hidden_TH, positions_N, weight_KH)
    assert_matches(pooled_heads(hidden_TH, positions_N[order], weight_KH), rewards_NK[order])


def test_no_candidates_give_no_rewards() -> None:
    maker = Maker.seeded(0)
    none = torch.empty(0, dtype=torch.int64)
    assert pooled_heads(maker.normal(3, 8), none, maker.weight(4, 8)).shape == (0, 4)
    assert pooled_heads(maker.normal(0, 8), none, maker.weight(4, 8)).shape == (0, 4)


@pytest.mark.parametrize("position", [-1, 3])
def test_position_outside_the_batch_is_an_error_on_the_cpu(position: int) -> None:
    maker = Maker.seeded(0)
    with pytest.raises(IndexError):
        pooled_heads(maker.normal(3, 8), torch.tensor([position]), maker.weight(4, 8))


def test_autocast_does_not_lower_the_precision() -> None:
    maker = Maker.seeded(0)
    arguments = (maker.normal(3, 64), torch.tensor([1]), maker.weight(4, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rewards_NK = pooled_heads(*arguments)
    assert torch.equal(rewards_NK, pooled_heads(*arguments))


def test_gradients_reach_hidden_states_and_heads() -> None:
    maker = Maker.seeded(0)
    hidden_TH, weight_KH = maker.normal(3, 8).requires_grad_(), maker.weight(4, 8).requires_grad_()
    pooled_heads(hidden_TH, torch.tensor([1, 1]), weight_KH).sum().backward()
    assert hidden_TH.grad is not None
    assert weight_KH.grad is not None
    assert_matches(hidden_TH.grad[1], 2.0 * weight_KH.sum(dim=0))
    assert_matches(weight_KH.grad, 2.0 * hidden_TH[1].expand(4, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_TH": torch.zeros(3)}, r"hidden_TH .* shape \(3,\)"),
        ({"hidden_TH": torch.zeros(3, 8).double()}, r"hidden_TH has dtype torch.float64"),
        ({"hidden_TH": torch.zeros(3, 0)}, r"hidden_TH .* shape \(3, 0\)"),
        ({"positions_N": torch.zeros(2, 1).long()}, r"positions_N .* shape \(2, 1\)"),
        ({"positions_N": torch.zeros(2)}, r"positions_N has dtype torch.float32"),
        ({"weight_KH": torch.zeros(4, 7)}, r"weight_KH has shape \(4, 7\).*8 wide"),
        ({"weight_KH": torch.zeros(0, 8)}, r"weight_KH has shape \(0, 8\)"),
        ({"weight_KH": torch.zeros(4, 8).half()}, r"weight_KH has dtype torch.float16"),
        ({"bias_K": torch.zeros(5)}, r"bias_K has shape \(5,\), expected \(4,\)"),
        ({"bias_K": torch.zeros(4).half()}, r"bias_K has dtype torch.float16"),
        (
            {"weight_KH": torch.zeros(4, 8, device="meta")},
            r"different devices.*'weight_KH': 'meta'",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    change: dict[str, torch.Tensor], message: str
) -> None:
    arguments = {
        "hidden_TH": torch.zeros(3, 8),
        "positions_N": torch.zeros(2, dtype=torch.int64),
        "weight_KH": torch.zeros(4, 8),
    }
    with pytest.raises(ValueError, match=message):
        pooled_heads(**{**arguments, **change})
