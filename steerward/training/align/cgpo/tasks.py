"""The tasks of a CGPO run: each has its own reward, judges, optimiser, limits and weight.

Multi-task stratification of "The Perfect Blend" (arXiv:2409.20370): tasks are disjoint sets of
prompts, told apart here by the column `task`, and a step follows sum_l rho_l g_l. The paper gives
no numbers for K, KL_max, beta, lambda or rho; every default here is ours.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from steerward.protocol.errors import DatasetRefused, InvalidRequest, brief

Optimizer = Literal["crpg", "codpo", "crraft"]
OPTIMIZERS: tuple[Optimizer, ...] = ("crpg", "codpo", "crraft")
COLUMN = "task"
"""Column of a row that names its task."""

RewardFunction = Callable[..., Any]


class Judged(Protocol):
    """What a mixture of judges found."""

    @property
    def satisfied(self) -> Sequence[bool]:
        """Whether every applicable judge passes each sample."""
        ...

    @property
    def verdicts(self) -> Mapping[str, Sequence[int | None]]:
        """Each judge's 1 (passes), 0 (fails), -1 (failed itself) or None (not applicable)."""
        ...


class Mixture(Protocol):
    """The judges of a task."""

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> Judged:
        """Judge samples, each with the row that it answers."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What is optimised on the prompts of a task, and how.

    Raises:
        InvalidRequest: If a number is out of its range, or the optimiser is none of the three.
    """

    name: str
    """As in the column `task` of its rows."""
    reward: str
    """Name of the reward column that is raised."""
    judges: Mixture | None = None
    """Whose verdicts constrain it; None satisfies everything."""
    optimizer: Optimizer = "crpg"
    max_kl: float = 20.0
    """KL_max of a whole response in nats, for crpg and crraft. Infinity is no limit; the default
    is ours. The paper's advice: lenient for instructions, mathematics and code, strict for chat."""
    beta: float = 0.1
    """Of codpo's preference term. The default is ours, and DPO's usual one."""
    likelihood_weight: float = 1.0
    """lambda, of codpo's likelihood of the winner. The default is ours."""
    weight: float = 1.0
    """rho of the task in the sum of gradients. The default is ours."""
    num_samples: int | None = None
    """K, how many of the trainer's `num_generations` are used; None uses all. The paper's advice:
    many for instructions, mathematics and code, few for chat."""
    share: float | None = None
    """Of the prompts of each batch; None for all tasks gives them equal shares, which is ours."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InvalidRequest(
                f"task {brief(self.name)!r} has optimizer {brief(str(self.optimizer))!r}; use one "
                f"of {', '.join(OPTIMIZERS)}",
                param="optimizer",
            )
        positive = {"max_kl": self.max_kl, "beta": self.beta, "weight": self.weight}
        at_least_zero = {"likelihood_weight": self.likelihood_weight}
        for field, value in (positive | at_least_zero).items():
            # Written so that NaN is refused too.
            is_right = value >= 0 if field in at_least_zero else value > 0
            if not is_right or (field != "max_kl" and value == float("inf")):
                raise InvalidRequest(
                    f"task {brief(self.name)!r} has {field} {value}; give a finite number "
                    f"{'of at least' if field in at_least_zero else 'above'} 0",
                    param=field,
                )
        if self.num_samples is not None and self.num_samples < 1:
            raise InvalidRequest(
                f"task {brief(self.name)!r} has num_samples {self.num_samples}; give at least 1",
                param="num_samples",
            )


def check_tasks(
    tasks: Sequence[Task], *, reward_names: Sequence[str], num_generations: int
) -> None:
    """Refuse tasks that cannot be trained together.

    Args:
        tasks: Of a run.
        reward_names: Of the reward columns there are.
        num_generations: Samples of each prompt.

    Raises:
        InvalidRequest: If there is none, two have one name, a reward column is not there, or a
            task wants more samples than are generated.
    """
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise InvalidRequest(
            f"the tasks are {', '.join(map(brief, names)) or 'none'}; give at least one, and each "
            "name once",
            param="tasks",
        )
    for task in tasks:
        if task.reward not in reward_names:
            raise InvalidRequest(
                f"task {brief(task.name)!r} has reward {brief(task.reward)!r}, and the reward "
                f"columns are {', '.join(map(brief, reward_names))}",
                param="reward",
            )
        if (task.num_samples or 1) > num_generations:
            raise InvalidRequest(
                f"task {brief(task.name)!r} uses {task.num_samples} samples of a prompt, and "
                f"{num_generations} are generated; raise num_generations or lower num_samples",
                param="num_samples",
            )


def task_places(names: Sequence[Any], tasks: Sequence[Task]) -> list[int]:
    """Return the place of each row's task among the tasks.

    Raises:
        DatasetRefused: If a row has no task, or one that is not among them.
    """
    places = {task.name: place for place, task in enumerate(tasks)}
    for row, name in enumerate(names):
        if name not in places:
            told = f"task {brief(str(name))!r}" if name else "no task"
            raise DatasetRefused(
                f"row {row} has {told}; each row needs in its column {COLUMN!r} one of "
                f"{', '.join(map(brief, places))}"
            )
    return [places[name] for name in names]


def task_rewards(functions: Sequence[RewardFunction], tasks: Sequence[Task]) -> list[Any]:
    """Return reward functions that answer None outside the tasks whose reward they are.

    Functions that are the reward of no task are returned as they are: their columns are logged for
    every row. The others are called with the rows of their tasks only.

    Args:
        functions: Reward columns of TRL, also `async def`.
        tasks: Of a run.
    """
    return [
        _limited(function, names)
        if (names := {task.name for task in tasks if task.reward == function.__name__})
        and len(names) < len(tasks)
        else function
        for function in functions
    ]


def _limited(function: RewardFunction, names: set[str]) -> RewardFunction:
    """Return a reward function that is asked about the rows of some tasks only."""

    def chosen(columns: Mapping[str, Any]) -> tuple[list[int], dict[str, Any]]:
        count = len(columns["prompts"])
        rows = [i for i, name in enumerate(columns[COLUMN]) if name in names]

        def log_extra(column: str, values: Sequence[Any]) -> None:
            columns["log_extra"](column, _spread(values, rows, count))

        taken = {
            key: [value[i] for i in rows]
            if isinstance(value, list) and len(value) == count
            else value
            for key, value in columns.items()
        }
        return rows, taken | ({"log_extra": log_extra} if columns.get("log_extra") else {})

    def rewards(**columns: Any) -> list[float | None]:
        rows, taken = chosen(columns)
        return _spread(function(**taken) if rows else [], rows, len(columns["prompts"]))

    async def later(**columns: Any) -> list[float | None]:
        rows, taken = chosen(columns)
        return _spread(await function(**taken) if rows else [], rows, len(columns["prompts"]))

    limited = later if inspect.iscoroutinefunction(function) else rewards
    limited.__name__ = limited.__qualname__ = function.__name__
    return limited


def _spread(values: Sequence[Any], rows: Sequence[int], count: int) -> list[Any]:
    """Return values at their rows, None elsewhere."""
    found = dict(zip(rows, values, strict=True))
    return [found.get(row) for row in range(count)]


def prompts_per_task(tasks: Sequence[Task], *, prompts: int) -> list[int]:
    """Return how many prompts of a batch are each task's, by largest remainder.

    Raises:
        InvalidRequest: If shares do not fit together, or a task would get no prompt.
    """
    shares = [1 / len(tasks) if task.share is None else task.share for task in tasks]
    given = [task.share for task in tasks if task.share is not None]
    if (given and len(given) < len(tasks)) or not abs(sum(shares) - 1) < 1e-6 or min(shares) < 0:
        told = ", ".join(f"{brief(task.name)} {task.share}" for task in tasks)
        raise InvalidRequest(
            f"shares of a batch are {told}; give every task one, above 0 and 1 together, or none",
            param="share",
        )
    counts = [int(share * prompts + 1e-9) for share in shares]
    by_remainder = sorted(
        range(len(tasks)), key=lambda i: counts[i] - shares[i] * prompts
    )  # stable: the first of equals is rounded up
    for i in by_remainder[: prompts - sum(counts)]:
        counts[i] += 1
    if min(counts) < 1:
        task = tasks[counts.index(0)]
        raise InvalidRequest(
            f"a batch has {prompts} prompts, and task {brief(task.name)!r} would get none of them; "
            "raise its share or the batch",
            param="share",
        )
    return counts


def stratified_order(
    names: Sequence[Any], tasks: Sequence[Task], *, prompts: int, seed: int
) -> list[int]:
    """Return rows in an order in which every batch holds the tasks in their shares.

    One pass over the task that lasts longest; the others are shuffled again whenever they end.

    Args:
        names: Task of each row.
        tasks: Of a run.
        prompts: In each batch, all processes together.
        seed: Of the shuffling.

    Raises:
        DatasetRefused: If a task has no row, or a row has no task.
        InvalidRequest: If the shares do not fit the batch.
    """
    places = task_places(names, tasks)
    counts = prompts_per_task(tasks, prompts=prompts)
    rows = [[row for row, place in enumerate(places) if place == i] for i in range(len(tasks))]
    for task, own in zip(tasks, rows, strict=True):
        if not own:
            raise DatasetRefused(f"no row has task {brief(task.name)!r}; remove it or add rows")
    order = random.Random(seed)
    batches = max(1, *(len(own) // count for own, count in zip(rows, counts, strict=True)))
    drawn = [
        _repeated(own, batches * count, order) for own, count in zip(rows, counts, strict=True)
    ]
    return [
        row
        for batch in range(batches)
        for own, count in zip(drawn, counts, strict=True)
        for row in own[batch * count : (batch + 1) * count]
    ]


def _repeated(rows: Sequence[int], count: int, order: random.Random) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += order.sample(rows, len(rows))
    return drawn[:count]
