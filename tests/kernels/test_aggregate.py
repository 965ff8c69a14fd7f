# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.kernels.aggregate import aggregate

from .cases import OBJECTIVES, Maker
from .tolerances import assert_matches


@pytest.mark.parametrize("objectives", OBJECTIVES)
def test_scores_and_coefficients_match_float64_numpy(objectives: int) -> None:
    maker = Maker.seeded(objectives)
    rewards_NK, gates_PK = maker.normal(33, objectives), maker.normal(7, objectives)
    prompt_index_N, transform_KK = maker.indices(33, below=7), maker.weight(objectives, objectives)
    scores_N, coefficients_PK = aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    r, g, m = (x.double().numpy() for x in (rewards_NK, gates_PK, transform_KK))
    transformed_NK = np.einsum("ni,ij->nj", r, m)  # the paper's order: rewards first, then gates
    assert_matches(scores_N, (transformed_NK * g[prompt_index_N.numpy()]).sum(axis=1))
    assert_matches(coefficients_PK, np.einsum("pj,ij->pi", g, m))


def test_documented_example() -> None:
    scores_N, coefficients_PK = aggregate(
        torch.tensor([[0.8, 0.5]]), torch.tensor([[0.75, 0.25]]), torch.tensor([0]), torch.eye(2)
    )
    assert_matches(scores_N, torch.tensor([0.725]))
    assert_matches(coefficients_PK, torch.tensor([[0.75, 0.25]]))


def test_verbosity_is_subtracted_from_the_other_rewards() -> None:
    """With M = identity minus a penalty row, only verbosity's own coefficient changes."""
    transform_KK = torch.eye(3)
    transform_KK[2] = torch.tensor([-0.5, -0.25, 0.0])
    gates_PK = torch.tensor([[0.5, 0.3, 0.2]])
    rewards_NK = torch.tensor([[0.8, 0.4, 0.6]])
    scores_N, coefficients_PK = aggregate(rewards_NK, gates_PK, torch.tensor([0]), transform_KK)
    assert_matches(coefficients_PK, torch.tensor([[0.5, 0.3, -0.325]]))
    assert_matches(scores_N, torch.tensor([0.5 * (0.8 - 0.3) + 0.3 * (0.4 - 0.15)]))


@settings(deadline=None, database=None)
@given(
    candidates=st.integers(0, 9),
    prompts=st.integers(1, 5),
    objectives=st.sampled_from(OBJECTIVES),
    seed=st.integers(0, 2**16),
)
def test_score_is_the_sum_of_coefficients_times_rewards(
    candidates: int, prompts: int, objectives: int, seed: int
) -> None:
    maker = Maker.seeded(seed)
    rewards_NK, gates_PK = maker.normal(candidates, objectives), maker.normal(prompts, objectives)
    prompt_index_N = maker.indices(candidates, below=prompts)
    scores_N, coefficients_PK = aggregate(
        rewards_NK, gates_PK, prompt_index_N, maker.weight(objectives, objectives)
    )
    assert scores_N.shape == (candidates,)
    assert coefficients_PK.shape == (prompts, objectives)
    assert_matches(scores_N, (coefficients_PK[prompt_index_N] * rewards_NK).sum(dim=-1))


@settings(deadline=None, database=None)
@given(order=st.permutations(range(9)), seed=st.integers(0, 2**16))
def test_order_of_candidates_does_not_matter(order: list[int], seed: int) -> None:
    maker = Maker.seeded(seed)
    rewards_NK, gates_PK, transform_KK = maker.normal(9, 5), maker.normal(4, 5), maker.weight(5, 5)
    prompt_index_N = maker.indices(9, below=4)
    scores_N, _ = aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    ordered_N, _ = aggregate(rewards_NK[order], gates_PK, prompt_index_N[order], transform_KK)
    assert_matches(ordered_N, scores_N[order])


def test_no_candidates_still_give_coefficients() -> None:
    maker = Maker.seeded(0)
    gates_PK, transform_KK = maker.normal(2, 5), maker.weight(5, 5)
    none = torch.empty(0, dtype=torch.int64)
    scores_N, coefficients_PK = aggregate(maker.normal(0, 5), gates_PK, none, transform_KK)
    assert scores_N.shape == (0,)
    assert_matches(coefficients_PK, gates_PK @ transform_KK.T)


@pytest.mark.parametrize("index", [-1, 2])
def test_prompt_index_outside_the_gates_is_an_error_on_the_cpu(index: int) -> None:
    with pytest.raises(IndexError):
        aggregate(torch.zeros(1, 3), torch.zeros(2, 3), torch.tensor([index]), torch.eye(3))


def test_gradients_reach_rewards_gates_and_transform() -> None:
    maker = Maker.seeded(0)
    trained = [maker.normal(4, 5), maker.normal(2, 5), maker.weight(5, 5)]
    for tensor in trained:
        tensor.requires_grad_()
    scores_N, _ = aggregate(trained[0], trained[1], torch.tensor([0, 1, 1, 0]), trained[2])
    scores_N.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in trained)


def test_autocast_does_not_lower_the_precision() -> None:
    maker = Maker.seeded(0)
    arguments = (maker.normal(4, 5), maker.normal(2, 5), torch.tensor([0, 1, 1, 0]), torch.eye(5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores_N, _ = aggregate(*arguments)
    assert torch.equal(scores_N, aggregate(*arguments)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards_NK": torch.zeros(4)}, r"rewards_NK .* shape \(4,\)"),
        ({"rewards_NK": torch.zeros(4, 5).half()}, "rewards_NK has dtype torch.float16"),
        ({"rewards_NK": torch.zeros(3, 5)}, r"N differs: rewards_NK \(3, 5\), .* \(4,\)"),
        ({"gates_PK": torch.zeros(2, 5).double()}, "gates_PK has dtype torch.float64"),
        ({"gates_PK": torch.zeros(2, 6)}, r"K differs: .*gates_PK \(2, 6\)"),
        ({"gates_PK": torch.zeros(0, 5)}, "4 candidates, but gates_PK holds no prompt"),
        ({"transform_KK": torch.zeros(6, 5)}, r"K differs: .*transform_KK \(6, 5\)"),
        ({"transform_KK": torch.zeros(5, 6)}, r"transform_KK has shape \(5, 6\)"),
        ({"prompt_index_N": torch.zeros(4)}, "prompt_index_N has dtype torch.float32"),
        ({"transform_KK": torch.zeros(5, 5, device="meta")}, "different devices"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    change: dict[str, torch.Tensor], message: str
) -> None:
    arguments = {
        "rewards_NK": torch.zeros(4, 5),
        "gates_PK": torch.zeros(2, 5),
        "prompt_index_N": torch.zeros(4, dtype=torch.int64),
        "transform_KK": torch.zeros(5, 5),
    }
    with pytest.raises(ValueError, match=message):
        aggregate(**{**arguments, **change})
