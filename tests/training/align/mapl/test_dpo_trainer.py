"""The trainer of policies against direct autograd and TRL's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.batch import conversations_of, encode_rows
from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from tests.policies import save_policy
from tests.training.align.mapl.samples import (
    INTER,
    INTRA,
    PAIRS,
    ROWS,
    gradients,
    load_tokenizer,
    options,
    policy_encoder,
)

_BETA = 0.3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "reference", seed=1)


def _trainer(
    base: Path, rows: Any, work: Path, *, reference: Path | None = None, **changes: Any
) -> MaplDPOTrainer:
    lambdas = {name: changes.pop(name) for name in list(changes) if name.startswith("lambda_")}
    peft_config = changes.pop("peft_config", None)
    dataset = encode_rows(rows, policy_encoder(base)).dataset
    given: dict[str, Any] = {"beta": _BETA, **options(work), **changes}
    return MaplDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        ref_model=AutoModelForCausalLM.from_pretrained(reference) if reference else None,
        args=DPOConfig(**given),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=load_tokenizer(base),
        peft_config=peft_config,
        **lambdas,
    )


def _rewards(model: Any, reference: Any, base: Path, row: Any) -> list[Any]:
    """Return the implicit reward of each conversation, one at a time and without padding."""
    encoder = policy_encoder(base)
    found: list[Any] = []
    for one in (encoder.encode(conversation) for conversation in conversations_of(row)):
        assert one is not None
        ids, start = torch.tensor([one[0]]), one[1]
        logps = []
        for each in (model, reference):
            table = each(ids).logits[0, :-1].log_softmax(-1)
            logps.append(table.gather(-1, ids[0, 1:, None])[start - 1 :].sum())
        found.append(_BETA * (logps[0] - logps[1].detach()))
    return found


def _direct_loss(
    model: Any, reference: Any, base: Path, *, lambda_intra: float = 1.0, lambda_inter: float = 1.0
) -> Any:
    def of(row: Any) -> list[Any]:
        return _rewards(model, reference, base, row)

    pairs = [-logsigmoid(a - b) for a, b in map(of, PAIRS)]
    intra = [-logsigmoid(a - b) for a, b in map(of, INTRA)]
    inter = [
        -logsigmoid(row.direction * ((a - b) - (c - d)))
        for row in INTER
        for a, b, c, d in [of(row)]
    ]
    means = [torch.stack(part).mean() for part in (pairs, intra, inter)]
    return means[0] + lambda_intra * means[1] + lambda_inter * means[2]


def _model(trainer: MaplDPOTrainer) -> Any:
    return trainer.model


def _batch(trainer: MaplDPOTrainer) -> Any:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def test_gradients_are_those_of_direct_autograd(
    base: Path, reference: Path, tmp_path: Path
) -> None:
    weights = {"lambda_intra": 0.5, "lambda_inter": 2.0}
    trainer = _trainer(base, ROWS, tmp_path, reference=reference, **weights)
    model = _model(trainer)
    loss = trainer.compute_loss(model, _batch(trainer))
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    expected = _direct_loss(model, trainer.ref_model, base, lambda_intra=0.5, lambda_inter=2.0)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, gradients(model), rtol=1e-4, atol=1e-5)


def test_original_pairs_alone_have_the_loss_of_trl(
    base: Path, reference: Path, tmp_path: Path
) -> None:
    none = {"lambda_intra": 0.0, "lambda_inter": 0.0}
    trainer = _trainer(base, PAIRS, tmp_path, reference=reference, **none)
    batch = _batch(trainer)
    plain = {k: v for k, v in batch.items() if k not in ("parts", "directions")}
    expected = DPOTrainer._compute_loss(trainer, _model(trainer), plain, False)
    torch.testing.assert_close(trainer.compute_loss(_model(trainer), batch), expected)


def test_policy_that_is_its_reference_has_loss_log_2(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, ROWS, tmp_path, reference=base)
    loss = trainer.compute_loss(_model(trainer), _batch(trainer))
    assert loss.item() == pytest.approx(3 * math.log(2), rel=1e-5)


def test_completion_mask_covers_the_response_alone_behind_both_prompts(
    base: Path, tmp_path: Path
) -> None:
    trainer = _trainer(base, [*PAIRS, *INTRA, *INTER], tmp_path)
    dataset: Any = trainer.train_dataset
    tokenizer = load_tokenizer(base)
    batch: Any = trainer.data_collator([dataset[2]])
    learned = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    end = tokenizer.eos_token
    assert learned == [INTRA[0].response + end] * 2
    assert batch["completion_mask"][0].argmax() != batch["completion_mask"][1].argmax()


def test_training_learns_and_logs_each_part(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, ROWS, tmp_path, reference=base, max_steps=30)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    for part in ("preference", "intra", "inter"):
        assert log[0][f"{part}/loss"] == pytest.approx(math.log(2), rel=1e-4)
        assert log[-1][f"{part}/loss"] < log[0][f"{part}/loss"]
    assert log[-1]["rewards/accuracies"] == log[-1]["preference/accuracy"]


def test_adapter_is_compared_with_its_base(base: Path, tmp_path: Path) -> None:
    adapter = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    trainer = _trainer(base, ROWS, tmp_path, peft_config=adapter)
    model = _model(trainer)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            # They begin at 0, where the adapter is its base.
            torch.nn.init.normal_(parameter, std=0.3)
    batch = _batch(trainer)
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    reference = AutoModelForCausalLM.from_pretrained(base)
    expected = _direct_loss(model, reference, base)
    expected.backward()
    assert loss.item() != pytest.approx(3 * math.log(2), rel=1e-2)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert found
    assert all("lora" in name for name in found)
    torch.testing.assert_close(found, gradients(model), rtol=1e-4, atol=1e-5)


def test_what_is_logged_of_pairs_is_of_original_pairs_alone(
    base: Path, reference: Path, tmp_path: Path
) -> None:
    """TRL's means were over the sides of intra and inter rows, too."""
    trainer = _trainer(base, ROWS, tmp_path, reference=reference)
    model = _model(trainer).train()
    trainer.compute_loss(model, _batch(trainer))
    rewards = [_rewards(model, trainer.ref_model, base, row) for row in PAIRS]
    logged = {name: values[0] for name, values in trainer._metrics["train"].items()}
    for place, side in enumerate(("chosen", "rejected")):
        mean = sum(row[place].item() for row in rewards) / len(PAIRS)
        assert logged[f"rewards/{side}"] == pytest.approx(mean, rel=1e-4)
    assert logged["rewards/margins"] == logged["preference/margin"]
    assert {name for name in logged if "/" not in name} == {"num_tokens"}
    assert not any(name.startswith("logits/") for name in logged)


@pytest.mark.parametrize(
    "change", [{"loss_type": "ipo"}, {"ld_alpha": 0.5}, {"precompute_ref_log_probs": True}]
)
def test_option_that_the_loss_does_not_have_is_refused(
    base: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(change))):
        _trainer(base, ROWS, tmp_path, **change)
