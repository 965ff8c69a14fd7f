"""What MODPO uses of TRL's DPO trainer, by name: it moves."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from trl.trainer import dpo_trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from steerward.training.align.modpo.loss import ADDED_LOSSES, ALLOWED_LOSSES, REFUSED_LOSSES
from steerward.training.align.modpo.trainer import REFERENCE_COLUMNS, MODPOTrainer

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_compute_loss", ["self", "model", "inputs", "return_outputs"]),
        ("_precompute_ref_logps", ["self", "dataset", "name", "batch_size"]),
        ("_set_signature_columns_if_needed", ["self"]),
        ("compute_ref_log_probs", ["self", "model", "inputs"]),
    ],
)
def test_methods_have_these_parameters(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(DPOTrainer, name)).parameters) == parameters


def test_three_methods_are_overridden() -> None:
    own = {name for name in vars(MODPOTrainer) if callable(getattr(MODPOTrainer, name))}
    assert {name for name in own if hasattr(DPOTrainer, name)} - {"__init__"} == {
        "_compute_loss",
        "_precompute_ref_logps",
        "_set_signature_columns_if_needed",
    }


def test_loss_reads_what_is_set_here() -> None:
    source = inspect.getsource(DPOTrainer._compute_loss)
    assert "if self.precompute_ref_logps:" in source
    for column in REFERENCE_COLUMNS:
        assert f'inputs["{column}"]' in source
    assert "self.beta * delta_score" in source
    assert "outputs = model(" in source
    assert "outputs.log_probs" in source
    assert 'self._metrics[mode]["rewards/chosen"]' in source


def test_every_loss_of_trl_is_known() -> None:
    source = inspect.getsource(DPOTrainer._compute_loss)
    known = {*ALLOWED_LOSSES, *ADDED_LOSSES, *REFUSED_LOSSES}
    for loss in known:
        assert f'loss_type == "{loss}"' in source
    assert source.count('loss_type == "') == len(known)


def test_settings_and_collator_have_these_fields() -> None:
    fields = {field.name for field in dataclasses.fields(DPOConfig)}
    assert fields >= {
        "beta",
        "loss_type",
        "loss_weights",
        "f_divergence_type",
        "precompute_ref_log_probs",
        "max_length",
        "truncation_mode",
        "ld_alpha",
    }
    assert {field.name for field in dataclasses.fields(DataCollatorForPreference)} >= {
        "pad_token_id",
        "max_length",
    }
    assert list(DPOConfig.__dataclass_fields__["beta"].metadata)
    assert hasattr(dpo_trainer, "use_adapter")
