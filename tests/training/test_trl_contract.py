"""What fine-tuning uses of TRL, PEFT and transformers, by name: their trainers move."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from peft import LoraConfig, PeftModel
from transformers import TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

pytestmark = pytest.mark.contract


def test_loss_that_is_overridden_has_these_parameters() -> None:
    parameters = inspect.signature(SFTTrainer.compute_loss).parameters
    assert list(parameters) == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert parameters["return_outputs"].default is False
    assert parameters["num_items_in_batch"].default is None


def test_trainer_takes_what_it_is_given() -> None:
    parameters = set(inspect.signature(SFTTrainer.__init__).parameters)
    assert parameters >= {"model", "args", "train_dataset", "processing_class", "peft_config"}


def test_settings_have_these_fields() -> None:
    fields = {field.name for field in dataclasses.fields(SFTConfig)}
    assert fields >= {
        "output_dir",
        "num_train_epochs",
        "train_sampling_strategy",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "max_length",
        "packing",
        "bf16",
        "use_cpu",
        "logging_steps",
        "logging_nan_inf_filter",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "save_only_model",
        "report_to",
        "disable_tqdm",
        "seed",
        "average_tokens_across_devices",
    }


def test_callbacks_and_adapters_have_these_names() -> None:
    for name in ("on_train_begin", "on_log", "on_save"):
        parameters = list(inspect.signature(getattr(TrainerCallback, name)).parameters)
        assert parameters[:4] == ["self", "args", "state", "control"]
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields >= {"task_type", "r", "lora_alpha", "lora_dropout", "target_modules"}
    assert "is_trainable" in inspect.signature(PeftModel.from_pretrained).parameters
    assert callable(PeftModel.disable_adapter)
