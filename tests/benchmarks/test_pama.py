"""PAMA's comparison trains every arm at a tiny size; MGDA's step is the shortest combination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.grpo_config import GRPOConfig

from benchmarks.pama import Setting, arms_of, check_weights, run
from benchmarks.peers.mgda import MgdaTrainer, shortest
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.diagnostics import flat_gradients, objective_losses
from steerward.training.align.grpo.groups import z_scores
from tests.policies import save_policy
from tests.training.align.grpo.cases import CONFIGS, batch_of, column, trainer_of

ONE = [0.0, 1.0, 3.0, 0.5, 2.0, 2.5, -1.0, 0.25]
TWO = [5.0, 1.0, 1.0, 3.0, 2.0, 0.0, 4.0, 6.0]
COLUMNS = [column("one", ONE), column("two", TWO)]
CONFIGS[MgdaTrainer] = GRPOConfig


def losses_of(trainer: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    """The loss of each objective by plain autograd, mean over samples and completion tokens."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    logps = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    length = batch["completion_ids"].shape[1]
    advantages = z_scores(torch.tensor([ONE, TWO]).T, group_size=4)
    losses = objective_losses(advantages, logps[:, -length:], mask_NT=batch["completion_mask"])
    return [loss / length for loss in losses]


@pytest.mark.contract
def test_gradient_of_mgda_is_the_shortest_combination(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, COLUMNS, kind=MgdaTrainer, settings={"loss_type": "dr_grpo"})
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions(batch_of())
    parameters = list(trainer.model.parameters())
    found = flat_gradients([trainer.compute_loss(trainer.model, batch)], parameters)[0]
    gradients = flat_gradients(losses_of(trainer, batch), parameters)
    weights, length = shortest(gradients)
    assert 0 < float(weights.min()) < 0.5
    assert torch.allclose(found, weights.float() @ gradients, atol=1e-6)
    assert float(found.norm()) == pytest.approx(length, rel=1e-3)
    assert length < float(gradients.norm(dim=-1).min())
    logged = trainer._metrics["train"]
    assert logged["align/pareto_weight/one"] == [pytest.approx(float(weights[0]), abs=1e-4)]
    assert logged["align/frac_nonzero"] == [1.0]


@pytest.mark.contract
def test_mgda_refuses_weights_and_parts_of_batches(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no weights"):
        trainer_of(tmp_path, COLUMNS, kind=MgdaTrainer, weights={"one": 1.0, "two": 0.5})
    with pytest.raises(InvalidRequest, match="part of the batch"):
        trainer_of(tmp_path, COLUMNS, kind=MgdaTrainer, settings={"gradient_accumulation_steps": 2})


def test_objective_without_a_gradient_is_left_out() -> None:
    weights, length = shortest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    assert weights.tolist() == [0.0, 1.0]
    assert length == pytest.approx(5.0)
    assert shortest(torch.zeros(3, 4))[1] == 0.0


@pytest.mark.parametrize("num_objectives", [2, 3, 7])
def test_weights_are_checked(num_objectives: int) -> None:
    check_weights(num_objectives=num_objectives)


@pytest.mark.e2e
def test_every_arm_is_trained_and_measured(tmp_path: Path) -> None:
    policy = save_policy(tmp_path / "policy", rule=None, positions=512)
    plot = tmp_path / "pama.png"
    setting = Setting(
        policy=str(policy), steps=1, seeds=2, prompts_per_step=2, generations=4, max_tokens=6,
        held_out=3, measure_every=1, plot=str(plot),
    )  # fmt: skip
    result = run(setting, tmp_path / "runs")
    assert list(result["arms"]) == list(arms_of(setting)) == [row[0] for row in rows_of(result)]
    assert result["num_prompts"] == 3
    starts = {arm["characters"][0] for arm in result["arms"].values()}
    assert len(starts) == 1
    for arm in result["arms"].values():
        assert len(arm["gains_by_seed"]) == 2
        assert 0 < arm["weights_ms"] < 1e3 * arm["cpu_s"]
    own, other = (result["arms"][name]["worst"]["mean"] for name in ("PAMA", "MGDA"))
    assert result["differences"]["PAMA"]["MGDA"]["mean"] == pytest.approx(own - other)
    assert rows_of(result)[2][2] == ""
    assert plot.stat().st_size > 1000
    json.dumps(result)


def rows_of(result: dict[str, Any]) -> list[list[str]]:
    return result["tables"][0]["rows"]
