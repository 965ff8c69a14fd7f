"""The loss of fine-tuning a policy, against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from steerward.training.sft_data import IGNORED, Example
from steerward.training.sft_loss import BasePolicy, PolicyTrainer, kl_divergences
from steerward.training.sft_run import FineTuning
from tests.policies import save_policy
from tests.sft_jobs import sft_job

COEFFICIENT = 0.7


@pytest.fixture(autouse=True)
def without_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "base")


def model_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def trainer_of(base: Path, folder: Path, frozen: nn.Module | None, **settings: Any) -> Any:
    run = FineTuning(sft_job(folder, base, kl_coef=COEFFICIENT, **settings), lambda _: None)
    return run.trainer(folder / "runs", BasePolicy(frozen))


def move(model: nn.Module) -> None:
    """Move every number that is trained a little."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.05 * noise


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def defined_loss(model: Any, base: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return what the module's docstring says, token by token."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    log_p = model(**inputs).logits.log_softmax(-1)
    with torch.no_grad():
        log_p0 = base(**inputs).logits.log_softmax(-1)
    terms: list[Tensor] = []
    for row, labels in enumerate(batch["labels"]):
        for t in range(1, len(labels)):
            if labels[t] == IGNORED:
                continue
            p, p0 = log_p[row, t - 1], log_p0[row, t - 1]
            terms.append(-p[labels[t]] + COEFFICIENT * (p.exp() * (p - p0)).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradients_are_those_of_the_definition(
    base: Path, tmp_path: Path, method: str
) -> None:
    frozen = model_of(base).eval()
    trainer = trainer_of(base, tmp_path, frozen if method == "full" else None, method=method)
    model = trainer.model
    move(model)
    rows = [trainer.train_dataset[i] for i in range(4)]
    batch = dict(trainer.data_collator(rows))
    count = int((batch["labels"] != IGNORED).sum())

    expected = defined_loss(model, frozen, batch)
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()

    loss = trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(count))
    loss.backward()
    found = gradients(model)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-5), name
    penalty, tokens = trainer.sums.take()
    assert tokens == count
    assert 0 < penalty < float(loss.detach())


def test_what_trl_pads_and_labels_is_what_was_encoded(base: Path, tmp_path: Path) -> None:
    run = FineTuning(sft_job(tmp_path, base), lambda _: None)
    trainer: PolicyTrainer = run.trainer(tmp_path / "runs", None)
    examples = {tuple(example.ids_T): example for example in run.examples}
    batches = list(trainer.get_train_dataloader())
    assert len(batches) == 5
    for batch in batches:
        for ids, mask, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            length = int(mask.sum())
            example: Example = examples[tuple(ids[:length].tolist())]
            assert labels[:length].tolist() == example.labels
            assert set(labels[length:].tolist()) <= {IGNORED}


def test_divergence_from_itself_is_zero_and_from_another_positive() -> None:
    logits_CV = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kl_divergences(logits_CV, logits_CV), torch.zeros(6))
    other_CV = logits_CV.roll(1, dims=-1)
    distribution = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(
        distribution(logits=logits_CV), distribution(logits=other_CV)
    )
    assert torch.allclose(kl_divergences(logits_CV, other_CV), expected, atol=1e-6)


def test_base_of_an_adapter_is_the_model_without_it(base: Path) -> None:
    plain = model_of(base)
    adapted = get_peft_model(model_of(base), LoraConfig(target_modules="all-linear"))
    assert isinstance(adapted, PeftModel)
    move(adapted)
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8]]),
        "attention_mask": torch.ones(1, 4, dtype=torch.long),
        "labels": torch.tensor([[IGNORED, IGNORED, 7, 8]]),
    }
    found = BasePolicy(None).logits(adapted, batch, adapted=adapted)
    expected = BasePolicy(plain).logits(adapted, batch, adapted=adapted)
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(p.requires_grad for name, p in adapted.named_parameters() if "lora_" in name)
