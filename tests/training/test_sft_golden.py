"""The loss of fine-tuning against numpy's, on policies that are tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerward.training.sft_data import IGNORED
from steerward.training.sft_loss import BasePolicy, completion_logits, kl_divergences
from steerward.training.sft_run import FineTuning
from tests.golden_optimizers import SINGLE, assert_close, bigram_policy, optimizer_cases
from tests.policies import save_policy
from tests.sft_jobs import sft_job

cases = pytest.mark.parametrize(
    "case", [case["fine_tuning"] for case in optimizer_cases("rsf")], ids=range(10)
)


def batch_of(inputs: dict[str, Any]) -> dict[str, Tensor]:
    tokens = torch.tensor(inputs["tokens"])
    places_T = torch.arange(tokens.shape[1])
    starts_N1, ends_N1 = (torch.tensor(inputs[name])[:, None] for name in ("starts", "ends"))
    is_learned_NT = (places_T >= starts_N1) & (places_T < ends_N1)
    return {
        "input_ids": tokens,
        "attention_mask": (places_T < ends_N1).long(),
        "labels": tokens.masked_fill(~is_learned_NT, IGNORED),
    }


@cases
def test_divergence_is_that_of_the_tables(case: dict[str, Any]) -> None:
    batch = batch_of(case["inputs"])
    logits_CV, base_logits_CV = (
        completion_logits(bigram_policy(case["inputs"][name]), batch) for name in ("policy", "base")
    )
    found_C = kl_divergences(logits_CV, base_logits_CV)
    assert_close(found_C, case["divergences"], tolerance=SINGLE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("golden") / "base")


@pytest.mark.contract
@cases
def test_loss_of_the_trainer_is_cross_entropy_and_divergence(
    base: Path, case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TRL then tells nobody of the training.
    monkeypatch.setenv("CI", "1")
    inputs = case["inputs"]
    run = FineTuning(sft_job(tmp_path, base, kl_coef=inputs["kl_coef"]), lambda _: None)
    trainer = run.trainer(tmp_path / "runs", BasePolicy(bigram_policy(inputs["base"])))
    trainer.current_gradient_accumulation_steps = 1
    policy, batch = bigram_policy(inputs["policy"]), batch_of(inputs)
    for num_items in (None, torch.tensor(len(case["divergences"]))):
        found = trainer.compute_loss(policy, dict(batch), num_items_in_batch=num_items)
        assert_close(found, case["loss"], tolerance=SINGLE)
