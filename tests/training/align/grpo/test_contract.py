"""What the multi-objective trainers use of TRL, by name: its trainers move."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from steerward.training.align.grpo.trainer import (
    MultiObjectiveGRPOTrainer,
    MultiObjectiveRLOOTrainer,
)

pytestmark = pytest.mark.contract

trainers = pytest.mark.parametrize("kind", [GRPOTrainer, RLOOTrainer])
OVERRIDDEN = ["_calculate_rewards", "_generate_and_score_completions", "_compute_loss"]


@trainers
def test_methods_that_are_overridden_have_these_parameters(kind: Any) -> None:
    expected = [
        ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        ["self", "inputs"],
        ["self", "model", "inputs"],
    ]
    found = [list(inspect.signature(getattr(kind, name)).parameters) for name in OVERRIDDEN]
    assert found == expected


@pytest.mark.parametrize("kind", [MultiObjectiveGRPOTrainer, MultiObjectiveRLOOTrainer])
def test_no_more_than_these_are_overridden(kind: Any) -> None:
    trl = next(one for one in kind.__mro__ if one.__module__.startswith("trl."))
    ours = [one for one in kind.__mro__ if one.__module__.startswith("steerward.")]
    names = {name for one in ours for name, value in vars(one).items() if callable(value)}
    overridden = {name for name in names if hasattr(trl, name)} - {"__init__"}
    assert overridden == set(OVERRIDDEN)
    # Attributes of ours that TRL or transformers have too would be overwritten.
    mine = set(re.findall(r"self\.(\w+)[^=\n]* = ", inspect.getsource(ours[-1].__init__)))
    mine -= {"reward_weights"}
    assert "_aggregation" in mine
    for source in map(inspect.getsource, (trl, Trainer)):
        assert not mine & set(re.findall(r"self\.(\w+)", source))


@trainers
def test_forward_pass_takes_these(kind: Any) -> None:
    parameters = list(inspect.signature(kind._get_per_token_logps_and_entropies).parameters)
    assert parameters[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    assert set(parameters) >= {
        *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "image_sizes"),
        *("spatial_shapes", "num_tiles", "token_type_ids", "mm_token_type_ids"),
        "image_position_ids",
    }


@trainers
def test_attributes_that_are_read_and_written_are_there(kind: Any) -> None:
    source = inspect.getsource(kind)
    for name in (
        *("reward_func_names", "reward_weights", "num_generations", "num_generations_eval"),
        *("accelerator.process_index", "_metrics[mode]", '_logs["advantages"]', "state"),
    ):
        assert f"self.{name}" in source, name
    for key in ("advantages", "prompt_ids", "prompt_mask", "completion_ids", "completion_mask"):
        assert f'"{key}"' in inspect.getsource(kind._generate_and_score_completions)


def test_names_of_only_one_trainer_are_there() -> None:
    assert '"old_per_token_logps"' in inspect.getsource(GRPOTrainer._compute_loss)
    assert '"old_logps"' in inspect.getsource(RLOOTrainer._compute_loss)
    assert "rewards = rewards - self.beta * kl" in inspect.getsource(
        RLOOTrainer._generate_and_score_completions
    )


def test_settings_that_are_refused_have_these_defaults() -> None:
    grpo = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    rloo = {field.name: field.default for field in dataclasses.fields(RLOOConfig)}
    assert grpo["multi_objective_aggregation"] == "sum_then_normalize"
    assert grpo["scale_rewards"] == "group"
    assert grpo["reward_weights"] is rloo["reward_weights"] is None
    assert rloo["normalize_advantages"] is False
    assert rloo["reward_clip_range"] is None


def test_further_tensors_of_a_batch_are_shuffled_and_split_with_it() -> None:
    batch: Any = {"ids": torch.arange(4)[:, None], "more": torch.arange(4)[:, None] * 10}
    shuffled: Any = shuffle_sequence_dict(batch)
    parts = split_tensor_dict(shuffled, 2)
    for part in parts:
        ids, more = part["ids"], part["more"]
        assert ids is not None
        assert more is not None
        assert torch.equal(ids * 10, more)
