"""The trainer of reward models against direct autograd and TRL's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.batch import conversations_of, encode_rows, reward_columns
from steerward.training.align.mapl.reward_trainer import MaplRewardTrainer
from tests.policies import save_policy
from tests.training.align.mapl.samples import (
    INTER,
    INTRA,
    PAIRS,
    ROWS,
    gradients,
    load_reward_model,
    load_tokenizer,
    options,
    reward_encoder,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base")


def _trainer(base: Path, rows: Any, work: Path, **changes: Any) -> MaplRewardTrainer:
    dataset = encode_rows(rows, reward_encoder(base)).dataset
    lambdas = {name: changes.pop(name) for name in list(changes) if name.startswith("lambda_")}
    given: dict[str, Any] = {**options(work), "max_length": None, **changes}
    return MaplRewardTrainer(
        model=load_reward_model(base),
        args=RewardConfig(**given),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=load_tokenizer(base),
        **lambdas,
    )


def _rewards(model: Any, base: Path, row: Any) -> list[torch.Tensor]:
    """Return the reward of each conversation of a row, one at a time and without padding."""
    encoder = reward_encoder(base)
    found = (encoder.encode(conversation) for conversation in conversations_of(row))
    return [model(torch.tensor([one[0]])).logits[0, 0] for one in found if one]


def _model(trainer: RewardTrainer) -> Any:
    return trainer.model


def _direct_loss(model: Any, base: Path, *, lambda_intra: float, lambda_inter: float) -> Any:
    sides = [(_rewards(model, base, row)) for row in [*PAIRS, *INTRA]]
    losses = [-logsigmoid(first - second) for first, second in sides]
    inter = [
        -logsigmoid(row.direction * ((a - b) - (c - d)))
        for row in INTER
        for a, b, c, d in [_rewards(model, base, row)]
    ]
    return (
        torch.stack(losses[:2]).mean()
        + lambda_intra * torch.stack(losses[2:]).mean()
        + lambda_inter * torch.stack(inter).mean()
    )


def test_gradients_are_those_of_direct_autograd(base: Path, tmp_path: Path) -> None:
    weights = {"lambda_intra": 0.5, "lambda_inter": 2.0}
    trainer = _trainer(base, ROWS, tmp_path, **weights)
    model = _model(trainer)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    expected = _direct_loss(model, base, **weights)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, gradients(model), rtol=1e-4, atol=1e-5)


def test_original_pairs_alone_have_the_loss_of_trl(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, PAIRS, tmp_path, lambda_intra=0.0, lambda_inter=0.0)
    batch: Any = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = RewardTrainer.compute_loss(trainer, _model(trainer), plain)
    assert trainer.compute_loss(_model(trainer), batch) == expected


def test_intra_rows_need_no_trainer_of_ours(base: Path, tmp_path: Path) -> None:
    """To TRL they are pairs without a prompt column, tokenised to the same ids as ours."""
    trainer = RewardTrainer(
        model=load_reward_model(base),
        args=RewardConfig(**options(tmp_path)),
        train_dataset=Dataset.from_dict(reward_columns(INTRA)),
        processing_class=load_tokenizer(base),
    )
    ours = encode_rows(INTRA, reward_encoder(base)).dataset
    for name in ("chosen_ids", "rejected_ids"):
        assert trainer.train_dataset[name][:] == ours[name][:]  # pyright: ignore
    batch: Any = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    sides = [_rewards(trainer.model, base, row) for row in INTRA]
    expected = torch.stack([-logsigmoid(first - second) for first, second in sides]).mean()
    torch.testing.assert_close(trainer.compute_loss(_model(trainer), batch), expected)


def test_training_learns_and_logs_each_part(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, ROWS, tmp_path, max_steps=30)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    for part in ("preference", "intra", "inter"):
        losses = [entry[f"{part}/loss"] for entry in log]
        assert losses[-1] < 0.5 * losses[0]
        assert log[-1][f"{part}/accuracy"] == 1
    assert log[-1]["accuracy"] == log[-1]["preference/accuracy"]
    assert log[-1]["margin"] == pytest.approx(log[-1]["preference/margin"])
    parts = sum(log[-1][f"{part}/loss"] for part in ("preference", "intra", "inter"))
    assert log[-1]["loss"] == pytest.approx(parts, rel=1e-3)


def test_evaluation_has_the_same_loss_in_small_batches(base: Path, tmp_path: Path) -> None:
    """Batches are weighted by their rows, and not by how many conversations these have."""
    whole = _trainer(base, ROWS, tmp_path).evaluate()
    parts = _trainer(base, ROWS, tmp_path, per_device_eval_batch_size=2).evaluate()
    assert parts["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-5)
    assert 0 <= whole["eval_inter/accuracy"] <= 1


def test_batch_without_original_pairs_logs_nothing_about_them(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, ROWS, tmp_path, per_device_eval_batch_size=1)
    _model(trainer).eval()
    dataset: Any = trainer.eval_dataset
    batch = trainer._prepare_inputs(trainer.data_collator([dataset[0]]))
    trainer.compute_loss(_model(trainer), batch)
    assert "accuracy" not in trainer._metrics["eval"]
    assert "inter/accuracy" in trainer._metrics["eval"]


def test_part_without_rows_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no intra row"):
        _trainer(base, [*PAIRS, *INTER], tmp_path)


@pytest.mark.parametrize("change", [{"center_rewards_coefficient": 0.01}, {"max_length": 512}])
def test_option_that_would_change_the_loss_is_refused(
    base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(change))):
        _trainer(base, ROWS, tmp_path, **change)


def test_data_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no column 'part'"):
        MaplRewardTrainer(
            model=load_reward_model(base),
            args=RewardConfig(**options(tmp_path)),
            train_dataset=Dataset.from_dict(reward_columns(INTRA)),
            processing_class=load_tokenizer(base),
        )
