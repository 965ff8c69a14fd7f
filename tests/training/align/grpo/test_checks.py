"""What is refused before or while rewards are trained on."""

from __future__ import annotations

import pytest
import torch

from steerward.protocol.errors import (
    InvalidDirection,
    InvalidRequest,
    NonFiniteScore,
    TrainingFailed,
    UnknownObjective,
)
from steerward.training.align.grpo.checks import (
    check_idle_steps,
    check_names,
    check_rewards,
    constant_columns,
    constant_steps,
    newly_constant,
    ordered_weights,
)

NAN = float("nan")
NAMES = ["one", "two"]


def test_columns_need_names_of_their_own() -> None:
    check_names(NAMES)
    with pytest.raises(InvalidRequest, match="two reward columns have the name 'one'"):
        check_names(["one", "two", "one"])
    with pytest.raises(InvalidRequest, match="no reward columns"):
        check_names([])


def test_weights_go_by_name() -> None:
    assert ordered_weights({"two": 2, "one": 0.0}, NAMES) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        ({"one": 1.0}, InvalidRequest, "leaves out two"),
        ({"one": 1.0, "two": 1.0, "three": 1.0}, UnknownObjective, "names three"),
        ({"one": 1.0, "two": NAN}, InvalidDirection, "weight of 'two' is nan"),
        ({"one": 0.0, "two": 0.0}, InvalidDirection, "all weights are 0"),
    ],
    ids=["missing", "unknown", "nan", "nothing"],
)
def test_weights_that_do_not_match_are_refused(
    weights: dict[str, float], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ordered_weights(weights, NAMES)


def test_column_that_is_missing_too_often_is_refused() -> None:
    rewards_NK = torch.tensor([[1.0, NAN], [1.0, NAN], [1.0, NAN], [1.0, 2.0]])
    with pytest.raises(TrainingFailed, match="'two' has no value for 75% of 4 samples, limit 50%"):
        check_rewards(rewards_NK, names=NAMES)
    check_rewards(rewards_NK, names=NAMES, max_missing=0.75)
    check_rewards(rewards_NK, names=NAMES, max_missing={"two": 1.0})
    with pytest.raises(TrainingFailed, match="limit 50%"):
        check_rewards(rewards_NK, names=NAMES, max_missing={"one": 1.0})
    with pytest.raises(UnknownObjective, match="names three"):
        check_rewards(rewards_NK, names=NAMES, max_missing={"three": 1.0})


def test_infinite_reward_is_refused() -> None:
    with pytest.raises(NonFiniteScore, match="'one' is infinite"):
        check_rewards(torch.tensor([[-torch.inf, 0.0]]), names=NAMES)


def test_constant_columns_are_counted_in_steps_on_end() -> None:
    constant_NK = torch.tensor([[1.0, 0.0], [1.0, 2.0], [3.0, 1.0], [NAN, 1.0]])
    found = constant_columns(constant_NK, group_size=2, names=NAMES)
    assert found == {"one"}
    assert constant_columns(torch.full((2, 1), NAN), group_size=2, names=["one"]) == frozenset()
    steps = constant_steps(constant_steps({}, found), {"one", "two"})
    assert steps == {"one": 2, "two": 1}
    assert newly_constant(steps, limit=2) == ["one"]
    assert constant_steps(steps, {"two"}) == {"two": 2}


def test_nothing_learned_for_too_long_is_refused() -> None:
    check_idle_steps(3, limit=3, constant=())
    with pytest.raises(TrainingFailed, match="for 4 steps on end, limit 3.*every group: one"):
        check_idle_steps(4, limit=3, constant={"one"})
