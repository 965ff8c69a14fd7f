"""Which reward models may take the place of another."""

from __future__ import annotations

import re
from typing import Any

import pytest

from steerward.engine.replacement import check_takes_over
from steerward.models.chat import ChatEncoder
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale


def like(model: RewardModel, **changes: Any) -> RewardModel:
    """Return a model with the parts of another, but for some."""
    parts = {
        "backbone": model.backbone,
        "chat": model.chat,
        "heads": model.heads,
        "gate": model.gate,
        "transform_KK": model.transform,
        "objectives": model.objectives,
        "architecture": model.architecture,
        "weight_version": "other",
        "max_input_tokens": model.max_input_tokens,
    }
    return RewardModel(**{**parts, **changes})


def objectives(model: RewardModel, **first: Any) -> ObjectiveSet:
    """Return those of a model, the first with some fields of its own."""
    known = [objective.model_dump() for objective in model.objectives.objectives]
    return ObjectiveSet(objectives=[Objective(**{**known[0], **first}), *known[1:]])  # pyright: ignore[reportArgumentType]


def test_other_weights_of_the_same_kind_take_over(armorm: RewardModel) -> None:
    reference = objectives(armorm, reference_mean=0.5, reference_std=0.1, description="Else.")
    for changes in (
        {},
        {"objectives": reference},
        {"max_input_tokens": armorm.max_input_tokens + 1},
        {"architecture": "steerward"},
    ):
        check_takes_over(like(armorm, **changes), armorm, folder="new")


@pytest.mark.parametrize("name", ["urm", "seqcls-llama-1", "seqcls-mistral-10"])
def test_models_of_other_kinds_are_refused(
    golden_models: dict[str, RewardModel], armorm: RewardModel, name: str
) -> None:
    with pytest.raises(CheckpointRefused, match="new cannot take over"):
        check_takes_over(golden_models[name], armorm, folder="new")


def test_other_names_and_another_order_are_refused(armorm: RewardModel) -> None:
    names = list(armorm.objectives.names)
    swapped = ObjectiveSet.from_names([names[1], names[0], *names[2:]])
    with pytest.raises(CheckpointRefused, match="number 1 is 'objective_1', served is 'objective"):
        check_takes_over(like(armorm, objectives=swapped), armorm, folder="new")
    renamed = ObjectiveSet.from_names([*names[:-1], "else"])
    with pytest.raises(CheckpointRefused, match="number 19 is 'else', served is 'objective_18'"):
        check_takes_over(like(armorm, objectives=renamed), armorm, folder="new")


def test_other_rating_scale_is_refused(armorm: RewardModel) -> None:
    rated = objectives(armorm, rating=RatingScale(label="0..4"))
    with pytest.raises(CheckpointRefused, match=r"rating scale 0\.\.4, served is none"):
        check_takes_over(like(armorm, objectives=rated), armorm, folder="new")


def test_missing_gate_and_a_gate_that_was_not_there_are_refused(armorm: RewardModel) -> None:
    gateless = like(armorm, gate=None)
    with pytest.raises(CheckpointRefused, match="gate reads is none, served is prompt"):
        check_takes_over(gateless, armorm, folder="new")
    with pytest.raises(CheckpointRefused, match="gate reads is prompt, served is none"):
        check_takes_over(armorm, gateless, folder="new")


def test_shorter_reach_is_refused_with_both_lengths(armorm: RewardModel) -> None:
    limits = "100 tokens, requests may have 2,048"
    with pytest.raises(CheckpointRefused, match=re.escape(limits)):
        check_takes_over(like(armorm, max_input_tokens=100), armorm, folder="new")


def test_other_chat_template_is_refused(armorm: RewardModel) -> None:
    """Token ids that clients keep would be scored in a form that the new weights do not know."""
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    chat = ChatEncoder(armorm.chat.tokenizer, template=template)
    with pytest.raises(CheckpointRefused, match="other token ids"):
        check_takes_over(like(armorm, chat=chat), armorm, folder="new")
