"""What CGPO uses of TRL, by name and by what it does: its trainers move."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler, pad, shuffle_sequence_dict, split_tensor_dict

from steerward.training.align.cgpo.trainer import CGPOTrainer

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_calculate_rewards", ["inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate_and_score_completions", ["inputs"]),
        ("_compute_loss", ["model", "inputs"]),
    ],
)
def test_methods_that_are_wrapped_have_these_parameters(name: str, parameters: list[str]) -> None:
    for kind in (GRPOTrainer, CGPOTrainer):
        found = inspect.signature(getattr(kind, name)).parameters
        assert list(found) == ["self", *parameters]


def test_three_methods_of_trl_are_wrapped_and_no_more() -> None:
    own = {name for name, value in vars(CGPOTrainer).items() if inspect.isfunction(value)}
    wrapped = {name for name in own if hasattr(GRPOTrainer, name)} - {"__init__"}
    assert wrapped == {
        "_calculate_rewards",
        "_generate_and_score_completions",
        "_compute_loss",
    }


def test_trainer_takes_what_it_is_given() -> None:
    parameters = set(inspect.signature(GRPOTrainer.__init__).parameters)
    wanted = {"model", "reward_funcs", "args", "train_dataset", "eval_dataset"}
    assert parameters >= wanted | {"processing_class", "callbacks", "peft_config"}


def test_settings_have_these_fields_and_defaults() -> None:
    fields = {field.name: field for field in dataclasses.fields(GRPOConfig)}
    defaults = {
        "beta": 0.0,
        "mask_truncated_completions": False,
        "remove_unused_columns": False,
        "top_entropy_quantile": 1.0,
        "use_liger_kernel": False,
        "num_iterations": 1,
    }
    assert {name: fields[name].default for name in defaults} == defaults
    assert fields.keys() >= {
        "loss_type",
        "num_generations",
        "num_generations_eval",
        "steps_per_generation",
        "generation_batch_size",
        "gradient_checkpointing_kwargs",
        "shuffle_dataset",
    }


def test_log_probabilities_come_from_this_method() -> None:
    parameters = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    assert list(parameters)[:6] == [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
    ]


def test_names_inside_the_methods_are_still_these() -> None:
    """They are no parameters, so only the source tells."""
    source = inspect.getsource(GRPOTrainer)
    for name in (
        "self._tokenizer",
        "self.max_completion_length",
        "self.num_generations_eval",
        "self.current_gradient_accumulation_steps",
        "self.shuffle_dataset",
        "self._metrics[mode]",
        'output["ref_per_token_logps"]',
        'output["old_per_token_logps"]',
        'output["tool_mask"]',
        "(per_token_loss * mask).sum() / (per_token_loss.size(0) * self.max_completion_length)",
    ):
        assert name in source, name
    loss = inspect.getsource(GRPOTrainer._compute_loss)
    assert "if self.beta != 0.0:" in loss


def test_extra_tensors_are_shuffled_and_split_with_the_batch() -> None:
    batch: Any = {"a": torch.arange(6), "b": torch.arange(6).unsqueeze(-1)}
    shuffled: Any = shuffle_sequence_dict(batch)
    parts: list[Any] = split_tensor_dict(shuffled, 2)
    for one in parts:
        assert one["a"].tolist() == one["b"].squeeze(-1).tolist()


def test_rows_come_in_their_order_without_shuffling() -> None:
    sampler = RepeatSampler(range(4), mini_repeat_count=2, batch_size=2, shuffle=False)
    assert list(sampler) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_tensors_are_padded_on_the_right() -> None:
    found = pad([torch.tensor([1, 2]), torch.tensor([3])], padding_value=9)
    assert found.tolist() == [[1, 2], [3, 9]]
    parameters = inspect.signature(disable_gradient_checkpointing).parameters
    assert list(parameters) == ["model", "gradient_checkpointing_kwargs"]
