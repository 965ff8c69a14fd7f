# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

import pytest
import torch

from steerward.kernels.pooled_heads import kernel, pooled_heads
from steerward.kernels.pooled_heads.reference import pooled_heads as reference

from .cases import DTYPES, NUM_TOKENS, OBJECTIVES, ROWS, Maker, dtype_name, kernel_path, on_cpu
from .tolerances import assert_matches


def _check(*arguments: torch.Tensor | None) -> None:
    with kernel_path("pooled_heads"):
        rewards_NK = pooled_heads(*arguments)
    expected_NK = reference(*[on_cpu(argument) for argument in arguments])
    assert_matches(rewards_NK, expected_NK, dtype=arguments[0].dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("rows", ROWS)
def test_rewards_match_the_reference(
    device: str, dtype: torch.dtype, objectives: int, rows: int
) -> None:
    maker = Maker.seeded(rows, device)
    bias_K = maker.normal(objectives) if rows % 2 else None
    _check(
        maker.normal(NUM_TOKENS, 65, dtype=dtype),
        maker.indices(rows, below=NUM_TOKENS),
        maker.weight(objectives, 65),
        bias_K,
    )


@pytest.mark.parametrize("hidden", [1, 64, 1023, 1024, 2049, 8192])
def test_any_hidden_size_matches_the_reference(device: str, hidden: int) -> None:
    maker = Maker.seeded(hidden, device)
    hidden_TH = maker.normal(9, hidden, dtype=torch.bfloat16)
    _check(hidden_TH, maker.indices(5, below=9), maker.weight(6, hidden), maker.normal(6))


def test_strided_arguments_match_the_reference(device: str) -> None:
    maker = Maker.seeded(0, device)
    wide_TH, tall_HT = maker.normal(NUM_TOKENS, 90), maker.normal(65, NUM_TOKENS)
    positions_N = maker.indices(14, below=NUM_TOKENS).int()[::2]
    weight_KH, bias_K = maker.weight(65, 10).T, maker.normal(20)[::2]
    _check(wide_TH[:, 3:68], positions_N, weight_KH, bias_K)
    _check(tall_HT.T, positions_N, weight_KH, bias_K)


def test_reward_of_a_row_is_the_same_alone_and_in_a_batch(device: str) -> None:
    maker = Maker.seeded(0, device)
    hidden_TH, weight_KH = maker.normal(NUM_TOKENS, 1500), maker.weight(19, 1500)
    positions_N = maker.indices(7, below=NUM_TOKENS)
    with kernel_path("pooled_heads"):
        rewards_NK = pooled_heads(hidden_TH, positions_N, weight_KH)
        for position, reward_K in zip(positions_N, rewards_NK, strict=True):
            alone_NK = pooled_heads(hidden_TH, position.reshape(1).clone(), weight_KH)
            assert torch.equal(alone_NK[0], reward_K)


def test_position_outside_the_batch_gives_nan_for_that_candidate_only(device: str) -> None:
    maker = Maker.seeded(0, device)
    hidden_TH, weight_KH = maker.normal(5, 65), maker.weight(3, 65)
    positions_N = torch.tensor([4, 5, 0, -1, 2**40], device=device)
    with kernel_path("pooled_heads"):
        rewards_NK = pooled_heads(hidden_TH, positions_N, weight_KH)
    assert rewards_NK[[1, 3, 4]].isnan().all()
    expected_NK = reference(*on_cpu([hidden_TH, positions_N[[0, 2]], weight_KH, None]))
    assert_matches(rewards_NK[[0, 2]], expected_NK)


def test_nan_and_infinity_stay_in_their_own_row(device: str) -> None:
    maker = Maker.seeded(0, device)
    hidden_TH = maker.normal(4, 65)
    hidden_TH[1, 7], hidden_TH[2, 7] = float("nan"), float("inf")
    _check(hidden_TH, torch.arange(4, device=device), maker.weight(3, 65), None)


@pytest.mark.parametrize(("rows", "launches"), [(0, 0), (1, 1), (5000, 1)])
def test_one_launch_whatever_the_number_of_candidates(rows: int, launches: int) -> None:
    meta = Maker("meta", torch.Generator())
    planned, _ = kernel.plan(
        meta.normal(9, 64), meta.indices(rows, below=9), meta.weight(19, 64), None
    )
    assert len(planned) == launches
