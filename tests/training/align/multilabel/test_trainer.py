"""The trainer of several labels: its loss is that of transformers' own regression."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerward.protocol.errors import CheckpointRefused
from steerward.training.align.multilabel.data import LabelledExamples, collate
from steerward.training.align.multilabel.settings import MultiLabelConfig
from steerward.training.align.multilabel.trainer import MultiLabelTrainer, load_label_model
from tests.policies import save_policy
from tests.sft_jobs import tensors

PADDING = 0


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "start")


def examples_of(num_labels: int) -> LabelledExamples:
    torch.manual_seed(1)
    ids = [torch.randint(5, 200, (length,)).tolist() for length in (4, 9, 6, 7)]
    return LabelledExamples(ids, torch.randn(len(ids), num_labels))


def trainer_of(start: Path, examples: LabelledExamples, work: Path) -> MultiLabelTrainer:
    names = [f"label {k}" for k in range(examples.labels_NK.shape[-1])]
    return MultiLabelTrainer(
        load_label_model(start, names, padding=PADDING, seed=0),
        (examples, examples),
        names=names,
        weights_K=torch.ones(len(names)),
        config=MultiLabelConfig(start=str(start), data=[work], out=work, batch_size=4),
        runs=work,
    )


def gradients(loss: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("num_labels", [1, 4])
def test_loss_and_gradients_equal_those_of_transformers(
    start: Path, tmp_path: Path, num_labels: int
) -> None:
    examples = examples_of(num_labels)
    trainer = trainer_of(start, examples, tmp_path)
    batch = collate([examples[n] for n in range(4)], padding=PADDING)
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    ours = trainer.compute_loss(model, batch)
    theirs = model(**batch).loss
    torch.testing.assert_close(ours, theirs)
    expected = gradients(theirs, model)
    for name, gradient in gradients(ours, model).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_output_of_a_missing_label_learns_nothing(start: Path, tmp_path: Path) -> None:
    examples = examples_of(3)
    examples.labels_NK[:, 1] = float("nan")
    trainer = trainer_of(start, examples, tmp_path)
    batch = collate([examples[n] for n in range(4)], padding=PADDING)
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    found = gradients(trainer.compute_loss(model, batch), model)
    assert not found["score.weight"][1].any()
    assert bool((found["score.weight"][[0, 2]] != 0).any(dim=-1).all())
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found.values())


def test_predictions_do_not_depend_on_the_batch(start: Path, tmp_path: Path) -> None:
    examples = examples_of(2)
    trainer = trainer_of(start, examples, tmp_path)
    together_NK = trainer.predict_held_out()
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    for n, ids in enumerate(examples.ids):
        alone_K = model(input_ids=torch.tensor([ids])).logits[0].detach()
        torch.testing.assert_close(together_NK[n], alone_K, atol=1e-5, rtol=1e-5)


def test_new_outputs_depend_on_the_seed_and_all_else_on_the_start(start: Path) -> None:
    states = [
        load_label_model(start, ["a", "b"], padding=PADDING, seed=seed).state_dict()
        for seed in (0, 0, 1)
    ]
    assert torch.equal(states[0]["score.weight"], states[1]["score.weight"])
    assert not torch.equal(states[0]["score.weight"], states[2]["score.weight"])
    before = tensors(start)
    kept = before.keys() & states[0].keys()
    assert len(kept) == len(states[0]) - 1
    assert all(torch.equal(states[0][key], before[key]) for key in kept)


def test_start_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="start in"):
        load_label_model(tmp_path, ["a"], padding=PADDING, seed=0)
