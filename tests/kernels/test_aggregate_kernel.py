# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

import pytest
import torch

from steerward.kernels.aggregate import aggregate, kernel
from steerward.kernels.aggregate.reference import aggregate as reference

from .cases import OBJECTIVES, ROWS, Maker, kernel_path, on_cpu
from .tolerances import assert_matches


def _check(*arguments: torch.Tensor) -> None:
    with kernel_path("aggregate"):
        scores_N, coefficients_PK = aggregate(*arguments)
    expected_N, expected_PK = reference(*[on_cpu(argument) for argument in arguments])
    assert_matches(scores_N, expected_N)
    assert_matches(coefficients_PK, expected_PK)


@pytest.mark.parametrize("objectives", [*OBJECTIVES, 100])
@pytest.mark.parametrize("candidates", ROWS)
@pytest.mark.parametrize("prompts", [1, 6])
def test_scores_and_coefficients_match_the_reference(
    device: str, objectives: int, candidates: int, prompts: int
) -> None:
    maker = Maker.seeded(candidates, device)
    _check(
        maker.normal(candidates, objectives),
        maker.normal(prompts, objectives),
        maker.indices(candidates, below=prompts),
        maker.weight(objectives, objectives),
    )


def test_prompts_without_candidates_get_their_coefficients(device: str) -> None:
    maker = Maker.seeded(0, device)
    index_N = torch.full((3,), 8, device=device)
    _check(maker.normal(3, 19), maker.normal(40, 19), index_N, maker.weight(19, 19))


def test_strided_arguments_match_the_reference(device: str) -> None:
    maker = Maker.seeded(0, device)
    _check(
        maker.normal(5, 33).T,
        maker.normal(4, 11)[:, 3:8],
        maker.indices(66, below=4).int()[::2],
        maker.weight(5, 5).T,
    )


def test_no_candidates_and_no_prompts_need_no_launch(device: str) -> None:
    maker = Maker.seeded(0, device)
    _check(maker.normal(0, 5), maker.normal(0, 5), maker.indices(0, below=1), maker.weight(5, 5))


def test_score_of_a_candidate_is_the_same_alone_and_in_a_batch(device: str) -> None:
    maker = Maker.seeded(0, device)
    rewards_NK, gates_PK, transform_KK = (
        maker.normal(9, 19),
        maker.normal(4, 19),
        maker.weight(19, 19),
    )
    prompt_index_N = maker.indices(9, below=4)
    with kernel_path("aggregate"):
        scores_N, _ = aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
        for n in range(9):
            gates_1K = gates_PK[prompt_index_N[n]].reshape(1, 19).clone()
            alone_N, _ = aggregate(
                rewards_NK[n : n + 1].clone(), gates_1K, prompt_index_N[:1] * 0, transform_KK
            )
            assert torch.equal(alone_N[0], scores_N[n])


def test_prompt_index_outside_the_gates_gives_nan_for_that_candidate_only(device: str) -> None:
    maker = Maker.seeded(0, device)
    rewards_NK, gates_PK, transform_KK = maker.normal(4, 5), maker.normal(2, 5), maker.weight(5, 5)
    prompt_index_N = torch.tensor([1, 2, 0, -1], device=device)
    with kernel_path("aggregate"):
        scores_N, coefficients_PK = aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    assert scores_N[[1, 3]].isnan().all()
    expected_N, expected_PK = reference(
        *on_cpu([rewards_NK[[0, 2]], gates_PK, prompt_index_N[[0, 2]], transform_KK])
    )
    assert_matches(scores_N[[0, 2]], expected_N)
    assert_matches(coefficients_PK, expected_PK)


def test_nan_stays_with_its_own_candidate_or_prompt(device: str) -> None:
    maker = Maker.seeded(0, device)
    rewards_NK, gates_PK = maker.normal(4, 5), maker.normal(3, 5)
    rewards_NK[0, 2], gates_PK[1, 3] = float("nan"), float("inf")
    _check(rewards_NK, gates_PK, torch.tensor([0, 1, 0, 2], device=device), maker.weight(5, 5))


@pytest.mark.parametrize(
    ("candidates", "prompts", "launches"), [(0, 0, 0), (0, 3, 1), (2000, 300, 1)]
)
def test_one_launch_writes_scores_and_coefficients(
    candidates: int, prompts: int, launches: int
) -> None:
    meta = Maker("meta", torch.Generator())
    planned, _ = kernel.plan(
        meta.normal(candidates, 19),
        meta.normal(prompts, 19),
        meta.indices(candidates, below=max(1, prompts)),
        meta.weight(19, 19),
    )
    assert len(planned) == launches
