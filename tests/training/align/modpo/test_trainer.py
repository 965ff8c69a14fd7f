"""MODPO in TRL's trainer is the formula, and DPO where there is nothing to trade."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer

from steerward.protocol.errors import DatasetRefused, InvalidRequest, NonFiniteScore
from steerward.training.align.modpo.loss import Tradeoff, modpo_logits, modpo_losses
from steerward.training.align.modpo.trainer import MODPOTrainer
from tests.policies import save_policy
from tests.training.align.modpo.cases import (
    BETA,
    TRADEOFF,
    lora,
    pairs,
    parts,
    perturb,
    settings,
    trainer,
)

DPO_ONLY = Tradeoff(("helpfulness", "brevity", "safety"), (1.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny", rule=None)


def batch_of(one: Any) -> dict[str, Any]:
    one.model.train()
    return dict(next(iter(one.get_train_dataloader())))


def summed_log_probs(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Return log-probabilities without anything of TRL."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (found * batch["completion_mask"][:, 1:]).sum(-1)


def direct_loss(model: Any, batch: Mapping[str, Any], reference: Tensor, loss: Any) -> Tensor:
    chosen, rejected = (summed_log_probs(model, batch) - reference).chunk(2)
    margins = batch["margin_chosen"] - batch["margin_rejected"]
    logits = modpo_logits(chosen - rejected, margins, tradeoff=TRADEOFF, beta=BETA)
    return modpo_losses(logits, loss=loss).mean()


def gradients(model: Any) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


@pytest.mark.parametrize("loss", ["sigmoid", "hinge"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_is_that_of_the_direct_formula(
    policy: Path, tmp_path: Path, method: str, loss: str
) -> None:
    more: dict[str, Any] = {"peft_config": lora()} if method == "lora" else {}
    one = trainer(policy, tmp_path, loss_type=[loss], **more)
    perturb(one.model)
    batch = batch_of(one)
    with torch.no_grad():
        reference = summed_log_probs(parts(policy)["model"].eval(), batch)
    value = one.compute_loss(one.model, batch)
    value.backward()
    found = gradients(one.model)
    one.model.zero_grad()
    expected_value = direct_loss(one.model, batch, reference, loss)
    expected_value.backward()
    expected = gradients(one.model)
    assert value.item() == pytest.approx(expected_value.item(), abs=1e-6)
    assert found.keys() == expected.keys()
    assert found
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-4


@pytest.mark.parametrize("method", ["full", "lora", "precomputed"])
def test_weights_of_the_pairs_alone_are_trls_dpo_bit_for_bit(
    policy: Path, tmp_path: Path, method: str
) -> None:
    more: dict[str, Any] = {"peft_config": lora()} if method == "lora" else {}
    changes = {"precompute_ref_log_probs": method == "precomputed"}
    one = trainer(policy, tmp_path / "a", tradeoff=DPO_ONLY, **more, **changes)
    other: Any = DPOTrainer(
        args=settings(tmp_path / "b", **changes), train_dataset=pairs(), **parts(policy), **more
    )
    for each in (one, other):
        perturb(each.model)
        each.compute_loss(each.model, batch_of(each)).backward()
    expected = gradients(other.model)
    for name, gradient in gradients(one.model).items():
        assert torch.equal(gradient, expected[name]), name
    assert expected
    shared = {k: v for k, v in one._metrics["train"].items() if not k.startswith("modpo/")}
    assert shared == dict(other._metrics["train"])


def test_trained_with_weights_of_the_pairs_alone_is_trained_by_dpo(
    policy: Path, tmp_path: Path
) -> None:
    one = trainer(policy, tmp_path / "a", tradeoff=Tradeoff(("helpfulness",), (1.0,)))
    other: Any = DPOTrainer(args=settings(tmp_path / "b"), train_dataset=pairs(), **parts(policy))
    for each in (one, other):
        each.train()
    expected = dict(other.model.named_parameters())
    for name, parameter in one.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_margins_change_the_loss(policy: Path, tmp_path: Path) -> None:
    one = trainer(policy, tmp_path)
    batch = batch_of(one)
    without = batch | {k: torch.zeros_like(batch[k]) for k in ("margin_chosen", "margin_rejected")}
    losses = [one.compute_loss(one.model, each).item() for each in (batch, without)]
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_reference_may_be_computed_beforehand(policy: Path, tmp_path: Path, method: str) -> None:
    more: dict[str, Any] = {"peft_config": lora()} if method == "lora" else {}
    made = [
        trainer(policy, tmp_path / name, precompute_ref_log_probs=name == "before", **more)
        for name in ("before", "live")
    ]
    assert made[0].ref_model is None
    found = []
    for one in made:
        perturb(one.model)
        batch = batch_of(one)
        found.append(one.compute_loss(one.model, batch).item())
        # The batch is the trainer's own again: another pass gives the same.
        assert one.compute_loss(one.model, batch).item() == found[-1]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_reference_columns_that_are_there_are_taken(policy: Path, tmp_path: Path) -> None:
    data = pairs()
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        data = data.add_column(column, [-7.0] * len(data))  # pyright: ignore
    one = trainer(policy, tmp_path, data=data, precompute_ref_log_probs=True)
    assert batch_of(one)["ref_chosen_logps"].tolist() == [-7.0] * 3


def test_logs_hold_rewards_of_the_paper_and_both_terms(policy: Path, tmp_path: Path) -> None:
    one = trainer(policy, tmp_path)
    perturb(one.model)
    batch = batch_of(one)
    with torch.no_grad():
        reference = summed_log_probs(parts(policy)["model"].eval(), batch)
        ratios = summed_log_probs(one.model, batch) - reference
    one.compute_loss(one.model, batch)
    logged = {key: values[-1] for key, values in one._metrics["train"].items()}
    chosen, rejected = ratios.chunk(2)
    weights = torch.tensor(TRADEOFF.others)
    differences = batch["margin_chosen"] - batch["margin_rejected"]
    reward = (BETA * chosen - batch["margin_chosen"] @ weights) / TRADEOFF.own
    assert logged["rewards/chosen"] == pytest.approx(float(reward.mean()), abs=1e-5)
    implicit = BETA * (chosen - rejected).abs().mean()
    assert logged["modpo/implicit"] == pytest.approx(float(implicit), abs=1e-5)
    margin = (differences @ weights).abs().mean()
    assert logged["modpo/margin"] == pytest.approx(float(margin), abs=1e-5)
    safety = differences[:, 1].abs().mean()
    assert logged["modpo/margin/safety"] == pytest.approx(float(safety), abs=1e-5)


def test_checkpoint_resumes_with_the_same_numbers(policy: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(policy, tmp_path / "run", **changes)
    whole.train()
    again = trainer(policy, tmp_path / "again", **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    expected = dict(whole.model.named_parameters())
    for name, parameter in again.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    losses = [
        [entry["loss"] for entry in each.state.log_history if "loss" in entry]
        for each in (whole, again)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


@pytest.mark.parametrize("precomputed", [False, True])
def test_pairs_held_out_are_evaluated_with_margins(
    policy: Path, tmp_path: Path, precomputed: bool
) -> None:
    one = trainer(
        policy,
        tmp_path,
        eval_dataset=pairs(),
        precompute_ref_log_probs=precomputed,
        peft_config=lora(),
    )
    found = one.evaluate()
    assert found["eval_loss"] == pytest.approx(one.evaluate(pairs())["eval_loss"], abs=1e-6)
    history = one.state.log_history[-1]
    assert history["eval_modpo/margin"] > 0


@pytest.mark.parametrize("remove", [False, True])
def test_texts_are_trained_too_and_unused_columns_may_go(
    policy: Path, tmp_path: Path, remove: bool
) -> None:
    one = trainer(policy, tmp_path, data=pairs(conversational=False), remove_unused_columns=remove)
    one.train()
    assert one.state.log_history[0]["modpo/margin"] > 0


def test_one_margin_may_be_a_number(policy: Path, tmp_path: Path) -> None:
    data = pairs(margins=0)
    for column in ("margin_chosen", "margin_rejected"):
        data = data.add_column(column, [0.5] * len(data))  # pyright: ignore
    one = trainer(policy, tmp_path, tradeoff=Tradeoff(("a", "b"), (0.5, 0.5)), data=data)
    assert batch_of(one)["margin_chosen"].tolist() == [[0.5]] * 3


def test_pair_without_a_margin_is_told_with_its_row(policy: Path, tmp_path: Path) -> None:
    rows = [dict(row) for row in pairs()]
    rows[4]["margin_rejected"] = None
    with pytest.raises(DatasetRefused, match="training pairs, row 4: margin_rejected"):
        trainer(policy, tmp_path, data=Dataset.from_list(rows))
    rows[4]["margin_rejected"] = [0.1, float("nan")]
    with pytest.raises(DatasetRefused, match="evaluation pairs, row 4.*no finite number"):
        trainer(policy, tmp_path, eval_dataset=Dataset.from_list(rows))
    with pytest.raises(DatasetRefused, match="no column margin_chosen"):
        trainer(policy, tmp_path, data=pairs(margins=0))
    with pytest.raises(DatasetRefused, match="has 1 margins"):
        trainer(policy, tmp_path, data=pairs(margins=1))


def test_stream_is_checked_batch_by_batch(policy: Path, tmp_path: Path) -> None:
    one = trainer(policy, tmp_path, data=pairs().to_iterable_dataset())
    one.train()
    bare = trainer(policy, tmp_path, data=pairs(margins=0).to_iterable_dataset())
    with pytest.raises(DatasetRefused, match="pair 0 of the batch: margin_chosen"):
        bare.train()
    large = pairs(margins=0)
    for column in ("margin_chosen", "margin_rejected"):
        large = large.add_column(column, [[1e300, 0.0]] * len(large))  # pyright: ignore
    with pytest.raises(NonFiniteScore, match="does not fit into float32"):
        batch_of(trainer(policy, tmp_path, data=large))


def test_losses_that_cannot_carry_margins_are_refused_before_anything_loads(
    tmp_path: Path,
) -> None:
    for changes in ({"loss_type": ["ipo"]}, {"f_divergence_type": "forward_kl"}):
        with pytest.raises(InvalidRequest, match="cannot be used with MODPO"):
            MODPOTrainer(
                tradeoff=TRADEOFF,
                args=settings(tmp_path, **changes),
                train_dataset=pairs(),
                model="nowhere",
            )


@pytest.mark.parametrize("loss", ["robust", "exo_pair", "discopop"])
def test_other_allowed_losses_read_the_margin_alike(
    policy: Path, tmp_path: Path, loss: str
) -> None:
    """Margins that equal what the policy would add to its logits give the same loss."""
    changes = {"loss_type": [loss], "label_smoothing": 0.1}
    one = trainer(policy, tmp_path, **changes)
    perturb(one.model)
    batch = batch_of(one)
    shift = 3.0
    moved = batch | {k: batch[k] + shift for k in ("margin_chosen", "margin_rejected")}
    losses = [one.compute_loss(one.model, each).item() for each in (batch, moved)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
