"""Rewards that margins are made of: columns of TRL's kind, and a reward model in this process."""

from __future__ import annotations

import re
from typing import Any

import pytest

from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import DatasetRefused, InvalidRequest, UnknownObjective
from steerward.training.align.modpo.margin_sources import ColumnMargins, ModelMargins
from steerward.training.align.modpo.margins import Response, with_margins
from tests.golden_cases import GOLDEN
from tests.training.align.modpo.cases import pairs

TEXTS = pairs(margins=0, conversational=False)
TURNS = pairs(margins=0)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return load_reward_model(GOLDEN / "armorm", device="cpu")


def length(prompts: Any, completions: Any, **_: Any) -> list[float | None]:
    return [float(len(one)) for one in completions]


async def rated(prompts: Any, completions: Any, rating: Any, **_: Any) -> list[float | None]:
    return [float(one) for one in rating]


def test_columns_are_called_as_trl_calls_them() -> None:
    data = TEXTS.add_column("rating", list(range(6)))  # pyright: ignore
    source = ColumnMargins([length, rated], version="1", columns=["rating"])
    assert source.names == ("length", "rated")
    found = with_margins(data, [source], batch_size=5)
    assert found["margin_chosen"][3] == [1.0, 3.0]
    assert found["margin_rejected"][5] == [32.0, 5.0]


def test_rows_that_differ_in_a_column_are_asked_for_apart() -> None:
    data = TEXTS.select([0, 0]).add_column("rating", [1, 2])  # pyright: ignore
    found = with_margins(data, [ColumnMargins([rated], version="1", columns=["rating"])])
    assert found["margin_chosen"] == [[1.0], [2.0]]


def test_column_that_is_not_there_is_told() -> None:
    with pytest.raises(DatasetRefused, match="no column 'rating'"):
        with_margins(TEXTS, [ColumnMargins([rated], version="1", columns=["rating"])])


def test_model_scores_as_it_does_alone(model: RewardModel) -> None:
    source = ModelMargins(model, {"objective_4": -1.0, "objective_15": 2.0})
    for data in (TEXTS, TURNS):
        found = with_margins(data, [source], batch_size=4)
        output = model.score_conversation(
            [
                {"role": "user", "content": TEXTS["prompt"][2]},
                {"role": "assistant", "content": TEXTS["rejected"][2]},
            ]
        )
        names = model.objectives.names
        for k, (name, factor) in enumerate({"objective_4": -1, "objective_15": 2}.items()):
            expected = factor * float(output.rewards_NK[0, names.index(name)])
            assert found["margin_rejected"][2][k] == pytest.approx(expected, abs=1e-5)


def test_identity_of_a_model_is_its_weights_and_the_factor(model: RewardModel) -> None:
    one, other = (ModelMargins(model, {"objective_15": factor}) for factor in (1.0, -1.0))
    assert model.weight_version in one.identity("objective_15")
    assert one.identity("objective_15") != other.identity("objective_15")


def test_text_that_is_too_long_has_no_margin(model: RewardModel) -> None:
    source = ModelMargins(model, {"objective_15": 1.0})
    long = "word " * (model.max_input_tokens + 1)
    given = [Response("p", text, {}) for text in ("a", long, "b")]
    assert [one is None for one in source.rewards(given)["objective_15"]] == [False, True, False]
    assert source.rewards([given[1]]) == {"objective_15": [None]}


def test_what_a_model_cannot_score_is_refused(model: RewardModel) -> None:
    with pytest.raises(UnknownObjective, match=re.escape("no objective 'charm'")):
        ModelMargins(model, {"charm": 1.0})
    turns = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(InvalidRequest, match="2 turns"):
        ModelMargins(model, {"objective_15": 1.0}).rewards([Response("p", turns, {})])
