"""Tasks are checked, rewards answer for their own tasks only, and batches hold given shares."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.cgpo.tasks import (
    Task,
    check_tasks,
    prompts_per_task,
    stratified_order,
    task_places,
    task_rewards,
)

CHAT, CODE = Task("chat", "kindness"), Task("code", "unit_checks")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "ppo"),
        ("max_kl", 0.0),
        ("max_kl", float("nan")),
        ("beta", -0.1),
        ("likelihood_weight", -1.0),
        ("weight", 0.0),
        ("weight", float("inf")),
        ("num_samples", 0),
    ],
)
def test_task_out_of_range_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Task("chat", "kindness", **{field: value})


def test_unlimited_kl_and_no_likelihood_are_allowed() -> None:
    assert Task("chat", "kindness", max_kl=float("inf"), likelihood_weight=0.0).weight == 1.0


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "none"),
        ([CHAT, CHAT], "each name once"),
        ([Task("chat", "wit")], "'wit'.* kindness, unit_checks"),
        ([Task("chat", "kindness", num_samples=9)], "9 samples .* 8 are generated"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(tasks: list[Task], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        check_tasks(tasks, reward_names=["kindness", "unit_checks"], num_generations=8)


@pytest.mark.parametrize(("name", "told"), [("maths", "task 'maths'"), (None, "no task")])
def test_row_of_no_known_task_is_refused(name: str | None, told: str) -> None:
    with pytest.raises(DatasetRefused, match=f"row 1 has {told}.* chat, code"):
        task_places(["chat", name], [CHAT, CODE])
    assert task_places(["code", "chat"], [CHAT, CODE]) == [1, 0]


def kindness(prompts: list[str], completions: list[str], grade: list[int], **_: Any) -> list[Any]:
    assert len(prompts) == len(completions) == len(grade)
    return [float(one) for one in grade]


async def unit_checks(prompts: list[str], log_extra: Any = None, **_: Any) -> list[Any]:
    if log_extra is not None:
        log_extra("seen", prompts)
    return [1.0] * len(prompts)


def politeness(prompts: list[str], **_: Any) -> list[Any]:
    return [0.5] * len(prompts)


COLUMNS: dict[str, Any] = {
    "prompts": ["p", "q", "r"],
    "completions": ["a", "b", "c"],
    "task": ["chat", "code", "chat"],
    "grade": [3, 4, 5],
    "trainer_state": object(),
}


def test_rewards_are_none_outside_their_tasks() -> None:
    functions = task_rewards([kindness, unit_checks, politeness], [CHAT, CODE])
    assert [function.__name__ for function in functions] == [
        "kindness",
        "unit_checks",
        "politeness",
    ]
    assert functions[0](**COLUMNS) == [3.0, None, 5.0]
    assert inspect.iscoroutinefunction(functions[1])
    extras: dict[str, Any] = {}
    answer = functions[1](**COLUMNS, log_extra=extras.__setitem__)
    assert asyncio.run(answer) == [None, 1.0, None]
    assert extras == {"seen": [None, "q", None]}
    assert functions[2] is politeness


def test_reward_of_every_task_is_asked_of_every_row() -> None:
    assert task_rewards([kindness], [CHAT, Task("code", "kindness")])[0] is kindness


def test_reward_without_a_row_in_the_batch_is_not_asked() -> None:
    (function, _) = task_rewards([kindness, politeness], [CHAT, Task("code", "politeness")])
    assert function(**COLUMNS | {"task": ["code"] * 3}) == [None] * 3


@pytest.mark.parametrize(
    ("shares", "counts"), [((None, None), [4, 4]), ((0.75, 0.25), [6, 2]), ((0.9, 0.1), [7, 1])]
)
def test_shares_become_prompts(shares: tuple[Any, Any], counts: list[int]) -> None:
    tasks = [Task(name, "r", share=share) for name, share in zip("ab", shares, strict=True)]
    assert prompts_per_task(tasks, prompts=8) == counts


@pytest.mark.parametrize("shares", [(0.5, None), (0.5, 0.6), (1.5, -0.5), (0.99, 0.01)])
def test_shares_that_do_not_fit_are_refused(shares: tuple[Any, Any]) -> None:
    tasks = [Task(name, "r", share=share) for name, share in zip("ab", shares, strict=True)]
    with pytest.raises(InvalidRequest, match="share"):
        prompts_per_task(tasks, prompts=8)


def test_every_batch_holds_the_shares_and_every_row_comes() -> None:
    names = ["a"] * 9 + ["b"] * 4
    tasks = [Task("a", "r", share=0.75), Task("b", "r", share=0.25)]
    order = stratified_order(names, tasks, prompts=4, seed=3)
    batches = [order[i : i + 4] for i in range(0, len(order), 4)]
    assert len(batches) == 4
    assert all([names[row] for row in batch] == ["a", "a", "a", "b"] for batch in batches)
    assert set(order) == set(range(13))
    assert order == stratified_order(names, tasks, prompts=4, seed=3)
    assert order != stratified_order(names, tasks, prompts=4, seed=4)


def test_task_without_rows_is_refused() -> None:
    with pytest.raises(DatasetRefused, match="no row has task 'code'"):
        stratified_order(["chat"] * 3, [CHAT, CODE], prompts=2, seed=0)
