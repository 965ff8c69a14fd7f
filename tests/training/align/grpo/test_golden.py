"""Advantages of several rewards, PAMA's weights, and the clipped loss, against numpy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_config import GRPOConfig

from steerward.training.align.grpo.aggregation import (
    Aggregation,
    Gram,
    Min,
    SoftMin,
    SumThenNormalize,
    gdpo,
    mo_grpo,
)
from steerward.training.align.grpo.pama import Granularity, combine, noon
from tests.golden_optimizers import SINGLE, assert_close, bigram_policy, optimizer_cases, tensor_of
from tests.training.align.grpo.cases import column, trainer_of

METHODS = (
    *("sum_then_normalize", "gdpo", "mo_grpo", "softmin"),
    *("min", "min_signed", "gram", "gram_signed"),
)
LOSS_TYPES = ("grpo", "dr_grpo", "dapo")
cases = pytest.mark.parametrize("case", optimizer_cases("grpo"), ids=range(10))
pama_cases = pytest.mark.parametrize("case", optimizer_cases("pama"), ids=range(10))


def advantages(method: str, inputs: dict[str, Any]) -> Tensor:
    ways: dict[str, Aggregation] = {
        "sum_then_normalize": SumThenNormalize(),
        "gdpo": gdpo(),
        "mo_grpo": mo_grpo(),
        "softmin": SoftMin(inputs["sharpness"]),
        "min": Min(),
        "min_signed": Min(noon=False),
        "gram": Gram(),
        "gram_signed": Gram(noon=False),
    }
    weights_K = tensor_of(inputs["weights"])
    if isinstance(ways[method], Min | Gram):
        weights_K = (weights_K > 0).double()
    found = ways[method](tensor_of(inputs["rewards"]), group_size=4, weights_K=weights_K)
    return found.advantages_N


@pytest.mark.parametrize("method", METHODS)
@cases
def test_advantages_are_those_of_the_papers(case: dict[str, Any], method: str) -> None:
    found = advantages(method, case["inputs"])
    assert_close(found, case["advantages"][method])


@pama_cases
def test_pama_is_the_theorem_with_the_most_even_weights(case: dict[str, Any]) -> None:
    advantages_NK = tensor_of(case["inputs"]["advantages"])
    assert_close(noon(advantages_NK), case["noon"])
    ways: dict[str, tuple[Tensor, Granularity]] = {
        "min": (noon(advantages_NK), "sample"),
        "min_signed": (advantages_NK, "sample"),
        "gram": (noon(advantages_NK), "batch"),
        "gram_signed": (advantages_NK, "batch"),
    }
    for name, (given_NK, granularity) in ways.items():
        found = combine(given_NK, granularity=granularity)
        assert_close(found.advantages, case["advantages"][name])
        assert_close(found.weights, case["weights"][name])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("golden")
    settings = {"beta": 0.04, "epsilon": 0.2}
    return trainer_of(folder, [column("length")], settings=settings, aggregation=gdpo())


def batch_of(inputs: dict[str, Any], advantages_N: Tensor) -> dict[str, Tensor]:
    """Return what the trainer's loss takes: the first token is the prompt."""
    tokens = torch.tensor(inputs["tokens"])
    lengths_N1 = torch.tensor(inputs["lengths"])[:, None]
    mask_NT = (torch.arange(tokens.shape[1] - 1) < lengths_N1).long()
    others: dict[str, Tensor] = {}
    for name, key in (("old", "old_per_token_logps"), ("reference", "ref_per_token_logps")):
        log_p_VV = tensor_of(inputs[name]).log_softmax(dim=-1)
        others[key] = log_p_VV[tokens[:, :-1], tokens[:, 1:]]
    return {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": torch.ones_like(tokens[:, :1]),
        "completion_ids": tokens[:, 1:],
        "completion_mask": mask_NT,
        "num_items_in_batch": mask_NT.sum(),
        "advantages": advantages_N,
        **others,
    }


@pytest.mark.contract
@pytest.mark.parametrize("divergence", ["as_printed", "corrected"])
@cases
def test_loss_of_the_trainer_is_the_clipped_loss_with_a_divergence(
    trainer: Any, case: dict[str, Any], divergence: str
) -> None:
    inputs = case["inputs"]
    policy = bigram_policy(inputs["policy"])
    # What our runs do, for they leave it as it is.
    assert GRPOConfig.use_bias_correction_kl is True
    trainer.args.use_bias_correction_kl = divergence == "corrected"
    for method in METHODS:
        batch = batch_of(inputs, advantages(method, inputs))
        for loss_type in LOSS_TYPES:
            trainer.loss_type = loss_type
            expected = case["losses"][divergence][method][loss_type]
            assert_close(trainer.compute_loss(policy, dict(batch)), expected, tolerance=SINGLE)
