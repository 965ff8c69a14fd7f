"""What MAPL uses of TRL and transformers, by name: their trainers move."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from steerward.training.align.mapl.reward_trainer import MaplRewardTrainer

pytestmark = pytest.mark.contract

_OVERRIDDEN = {
    MaplRewardTrainer: {"compute_loss", "_set_signature_columns_if_needed"},
    MaplDPOTrainer: {"_compute_loss", "_prepare_dataset", "_set_signature_columns_if_needed"},
}
_TOKENS = "self._total_train_tokens += num_tokens_in_batch // self._tp_size"


def test_overridden_methods_are_these() -> None:
    for ours, names in _OVERRIDDEN.items():
        theirs = ours.__mro__[1]
        found = {name for name in vars(ours) if name in dir(theirs) and not name.startswith("__")}
        assert found == names


def test_losses_that_are_wrapped_have_these_parameters() -> None:
    parameters = inspect.signature(RewardTrainer.compute_loss).parameters
    assert list(parameters) == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    parameters = inspect.signature(DPOTrainer._compute_loss).parameters
    assert list(parameters) == ["self", "model", "inputs", "return_outputs"]
    parameters = inspect.signature(DPOTrainer._prepare_dataset).parameters
    assert list(parameters) == ["self", "dataset", "processing_class", "args", "dataset_name"]
    parameters = inspect.signature(DPOTrainer.compute_ref_log_probs).parameters
    assert list(parameters) == ["self", "model", "inputs"]


def test_reward_trainer_takes_columns_of_ids_for_processed() -> None:
    """Otherwise it would tokenise, and leave out what is over its own limit of tokens."""
    source = inspect.getsource(RewardTrainer._prepare_dataset)
    assert '"chosen_ids" in column_names and "rejected_ids" in column_names' in source


def test_losses_use_these_attributes() -> None:
    source = inspect.getsource(DPOTrainer._compute_loss)
    for name in (
        "outputs = model(**model_kwargs, labels=labels, fused_lm_head=True)",
        "outputs.log_probs[:, -seq_len:]",
        'model_kwargs["output_router_logits"] = True',
        "self.aux_loss_enabled",
        "self.router_aux_loss_coef",
        "self.beta",
        'self._metrics[mode]["rewards/accuracies"].append',
        'self._metrics[mode]["rewards/margins"].append',
        'self._metrics[mode]["rewards/chosen"].append',
        'self._metrics[mode]["logps/chosen"].append',
        _TOKENS,
    ):
        assert name in source
    source = inspect.getsource(RewardTrainer.compute_loss)
    for name in (
        'self._metrics[mode]["accuracy"].append',
        'self._metrics[mode]["margin"].append',
        _TOKENS,
    ):
        assert name in source


def test_options_that_are_refused_have_these_defaults() -> None:
    defaults = {field.name: field for field in dataclasses.fields(DPOConfig)}
    assert defaults["loss_type"].default_factory() == ["sigmoid"]  # pyright: ignore
    for name, value in {
        "loss_weights": None,
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "use_weighting": False,
        "precompute_ref_log_probs": False,
        "label_smoothing": 0.0,
    }.items():
        assert defaults[name].default == value
    fields = {field.name for field in dataclasses.fields(RewardConfig)}
    assert fields >= {"center_rewards_coefficient", "disable_dropout", "max_length"}
