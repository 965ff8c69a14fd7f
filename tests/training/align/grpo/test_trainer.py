"""TRL's trainers with several objectives: advantages, gradients, logs, refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from steerward.protocol.errors import InvalidRequest, TrainingFailed, UnknownObjective
from steerward.training.align.grpo.aggregation import (
    Min,
    NormalizeThenSum,
    SumThenNormalize,
    gdpo,
    mo_grpo,
)
from steerward.training.align.grpo.conditions import Condition
from steerward.training.align.grpo.groups import z_scores
from steerward.training.align.grpo.schedules import Linear
from steerward.training.align.grpo.trainer import (
    MultiObjectiveGRPOTrainer,
    MultiObjectiveRLOOTrainer,
)
from tests.training.align.grpo import process
from tests.training.align.grpo.cases import batch_of, column, logged, trainer_of
from tests.two_processes import answers_of_two

pytestmark = pytest.mark.contract

ONE = [0.0, 1.0, 3.0, 0.5, 2.0, 2.5, -1.0, 0.25]
TWO: list[float | None] = [5.0, None, 1.0, 3.0, None, None, 4.0, 6.0]
BOTH = [column("one", ONE), column("two", TWO)]
kinds = pytest.mark.parametrize("kind", [MultiObjectiveGRPOTrainer, MultiObjectiveRLOOTrainer])


def matrix() -> Tensor:
    rows = [[a, float("nan") if b is None else b] for a, b in zip(ONE, TWO, strict=True)]
    return torch.tensor(rows)


@pytest.mark.parametrize("rows_without_any", [False, True])
@pytest.mark.parametrize("native", ["sum_then_normalize", "normalize_then_sum"])
def test_advantages_equal_trls_native_tensor(
    tmp_path: Path, native: str, rows_without_any: bool
) -> None:
    one = [None, *ONE[1:]] if rows_without_any else ONE
    two = [None, *TWO[1:]] if rows_without_any else TWO
    trainer = trainer_of(
        tmp_path,
        [column("one", one), column("two", two)],
        aggregation=gdpo() if native == "normalize_then_sum" else SumThenNormalize(),
        weights={"one": 1.0, "two": 0.3},
    )
    trainer.multi_objective_aggregation = native
    ours = trainer._generate_and_score_completions(batch_of())["advantages"]
    theirs = GRPOTrainer._generate_and_score_completions(trainer, batch_of())["advantages"]
    assert torch.equal(ours, theirs)
    assert ours.abs().amax() > 0.1


@kinds
def test_advantages_are_those_of_the_aggregation(tmp_path: Path, kind: Any) -> None:
    trainer = trainer_of(tmp_path, BOTH, kind=kind, aggregation=Min())
    found = trainer._generate_and_score_completions(batch_of())["advantages"]
    expected = Min()(matrix(), group_size=4, weights_K=torch.ones(2)).advantages_N
    assert torch.equal(found, expected)
    assert list(trainer._logs["advantages"]) == expected.tolist()


def test_one_column_is_plain_grpo(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, [column("one", ONE)], aggregation=mo_grpo())
    ours = trainer._generate_and_score_completions(batch_of())["advantages"]
    theirs = GRPOTrainer._generate_and_score_completions(trainer, batch_of())["advantages"]
    assert torch.equal(ours, theirs)


def test_penalty_of_rloo_is_kept_as_trl_has_it(tmp_path: Path) -> None:
    """Overwriting the advantages would lose the KL divergence, which RLOO counts as reward."""
    settings = {"beta": 0.5, "num_iterations": 2}
    trainer = trainer_of(
        tmp_path,
        BOTH,
        kind=MultiObjectiveRLOOTrainer,
        settings=settings,
        aggregation=SumThenNormalize(scaling="none"),
        max_missing=1.0,
    )
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.manual_seed(3)
    ours = trainer._generate_and_score_completions(batch_of())["advantages"]
    torch.manual_seed(3)
    theirs = RLOOTrainer._generate_and_score_completions(trainer, batch_of())["advantages"]
    trainer.beta = 0.0
    without = RLOOTrainer._generate_and_score_completions(trainer, batch_of())["advantages"]
    penalty = theirs - without
    assert penalty.abs().amax() > 1e-2
    # The mean of the group in place of that of the others: a factor of 3/4.
    assert torch.allclose(ours, 0.75 * without + penalty, atol=1e-5)


def log_probabilities(trainer: Any, batch: dict[str, Tensor]) -> Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    logps = logits.float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return logps[:, -batch["completion_ids"].shape[1] :]


@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo", "sequence"])
def test_gradient_is_that_of_the_policy_gradient(tmp_path: Path, loss_type: str) -> None:
    is_rloo = loss_type == "sequence"
    kind = MultiObjectiveRLOOTrainer if is_rloo else MultiObjectiveGRPOTrainer
    settings = {} if is_rloo else {"loss_type": loss_type}
    trainer = trainer_of(tmp_path, BOTH, kind=kind, settings=settings, aggregation=Min())
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions(batch_of())
    parameters = list(trainer.model.parameters())
    found = torch.autograd.grad(trainer.compute_loss(trainer.model, batch), parameters)
    advantages_N = Min()(matrix(), group_size=4, weights_K=torch.ones(2)).advantages_N
    mask_NT = batch["completion_mask"]
    sums_N = (advantages_N[:, None] * log_probabilities(trainer, batch) * mask_NT).sum(dim=-1)
    lengths = {"dr_grpo": 5, "grpo": mask_NT.sum(dim=-1), "sequence": 1}
    expected = torch.autograd.grad(-(sums_N / lengths[loss_type]).mean(), parameters)
    assert max(float(one.abs().amax()) for one in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@kinds
def test_training_logs_named_raw_rewards_and_weights(
    tmp_path: Path, kind: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, logger="steerward")
    trainer = trainer_of(
        tmp_path,
        [*BOTH, column("length")],
        kind=kind,
        aggregation=NormalizeThenSum(whiten=False),
        weights={"one": 1.0, "two": 2.0, "length": 0.0},
        schedule={"two": Linear(1.0, 0.0)},
        conditions=[Condition("one", "two", 4.0)],
    )
    trainer.train()
    assert logged(trainer, "align/weight/two") == [2.0, 1.0]
    assert logged(trainer, "align/weight/length") == [0.0, 0.0]
    # Raw, whatever counts of it.
    assert logged(trainer, "rewards/one/mean") == pytest.approx([sum(ONE) / 8] * 2)
    assert logged(trainer, "rewards/two/mean") == pytest.approx([19 / 5] * 2)
    assert logged(trainer, "rewards/two/frac_missing") == [0.375, 0.375]
    total = sum(ONE) + 2.0 * 19
    assert logged(trainer, "reward") == pytest.approx([total / 8] * 2)
    assert logged(trainer, "align/frac_nonzero") == [1.0, 1.0]
    told = [record.message for record in caplog.records if "advantages" in record.message]
    assert told == [f"advantages: {trainer.description}"]
    assert "epsilon 0.0001" in told[0]


def test_evaluation_has_groups_of_its_own_size(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        [column("length"), column("sum")],
        settings={"num_generations_eval": 2, "per_device_eval_batch_size": 4},
        aggregation=Min(),
    )
    metrics = trainer.evaluate()
    assert "eval_rewards/length/mean" in metrics
    assert 0.0 <= metrics["eval_align/frac_nonzero"] <= 1.0
    assert "groups of 2" in trainer.description
    assert not trainer._constant_steps


@kinds
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_gradients_of_objectives_are_measured_when_asked(
    tmp_path: Path, kind: Any, adapter: bool
) -> None:
    trainer = trainer_of(
        tmp_path,
        [column("one", ONE), column("two", [-value for value in ONE])],
        kind=kind,
        settings={"max_steps": 4, "num_iterations": 2, "gradient_accumulation_steps": 2},
        peft_config=LoraConfig(r=2, task_type="CAUSAL_LM") if adapter else None,
        aggregation=mo_grpo(),
        weights={"one": 1.0, "two": 0.5},
        diagnostic_every=2,
    )
    trainer.train()
    # Two opposite objectives: every point is stationary.
    assert logged(trainer, "pareto/min_norm") == pytest.approx([0.0, 0.0], abs=1e-4)
    assert logged(trainer, "pareto/lowest_cosine") == pytest.approx([-1.0, -1.0], abs=1e-4)
    assert logged(trainer, "pareto/weight/one") == pytest.approx([0.5, 0.5], abs=1e-3)


def test_measuring_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    weights: list[Tensor] = []
    for every in (0, 1):
        columns = [column("length"), column("sum")]
        trainer = trainer_of(
            tmp_path / str(every), columns, aggregation=gdpo(), diagnostic_every=every
        )
        trainer.train()
        weights.append(torch.cat([one.detach().flatten() for one in trainer.model.parameters()]))
        assert len(logged(trainer, "pareto/min_norm")) == 2 * every
    assert torch.equal(*weights)


def test_objectives_are_told_to_the_samples_they_are_of(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, BOTH, aggregation=Min(), diagnostic_every=1)
    assert "objective_advantages" not in trainer._generate_and_score_completions(batch_of())
    trainer.model.train()
    found = trainer._generate_and_score_completions(batch_of())["objective_advantages"]
    assert torch.equal(found.nan_to_num(9.0), z_scores(matrix(), group_size=4).nan_to_num(9.0))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"weights": {"one": 1.0}}, InvalidRequest, "leaves out two"),
        ({"weights": {"one": 1.0, "two": 1.0, "x": 1.0}}, UnknownObjective, "names x"),
        ({"schedule": {"x": Linear(0.0, 1.0)}}, UnknownObjective, "schedule names x"),
        ({"conditions": [Condition("one", "x", 0.0)]}, UnknownObjective, "conditions names x"),
        ({"max_missing": {"x": 1.0}}, UnknownObjective, "max_missing names x"),
        ({"settings": {"reward_weights": [1.0, 1.0]}}, InvalidRequest, "no effect"),
        ({"settings": {"scale_rewards": "none"}}, InvalidRequest, "scale_rewards='none'"),
    ],
    ids=["weight", "name", "schedule", "condition", "missing", "weights-of-trl", "scale"],
)
def test_what_does_not_fit_is_refused_before_training(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        trainer_of(tmp_path, BOTH, aggregation=gdpo(), **options)


def test_columns_without_names_of_their_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="two reward columns have the name 'one'"):
        trainer_of(tmp_path, [BOTH[0], BOTH[0]], aggregation=gdpo())


def test_reward_that_goes_missing_stops_the_training(tmp_path: Path) -> None:
    columns = [BOTH[0], column("broken", [None] * 7 + [1.0])]
    trainer = trainer_of(tmp_path, columns, aggregation=gdpo())
    with pytest.raises(TrainingFailed, match="'broken' has no value for 88% of 8"):
        trainer.train()


def test_training_that_learns_nothing_is_stopped(tmp_path: Path, caplog: Any) -> None:
    trainer = trainer_of(
        tmp_path,
        [column("one", ONE), column("same", [1.0])],
        settings={"max_steps": 4},
        aggregation=Min(),
        max_constant_steps=2,
    )
    with pytest.raises(TrainingFailed, match="for 3 steps on end, limit 2.*every group: same"):
        trainer.train()
    assert "reward same was the same within every group for 2 steps" in caplog.text


@pytest.mark.e2e
def test_each_process_learns_from_its_part_of_the_group(tmp_path: Path) -> None:
    found = answers_of_two(process.__name__, str(tmp_path))
    rewards_NK = torch.tensor([process.ONE, process.TWO]).T
    whole = Min()(rewards_NK, group_size=4, weights_K=torch.ones(2)).advantages_N.tolist()
    assert [*found[0]["advantages"], *found[1]["advantages"]] == pytest.approx(whole)
    assert found[0]["table"] == found[1]["table"] == pytest.approx(whole)
    assert found[0]["min_norm"] == pytest.approx(found[1]["min_norm"])
