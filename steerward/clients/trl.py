"""Reward functions for TRL: the score and each objective as columns of their own.

    from steerward.clients.trl import reward_funcs
    trainer = GRPOTrainer(model, reward_funcs=reward_funcs("http://127.0.0.1:8000"), ...)

All columns of a batch come from one scoring call. For every trainer of TRL that takes
`reward_funcs`, and for what is built on it; TRL itself is not imported.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, Unpack

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.clients._rewards import Scorer, Settings, scorer
from steerward.clients._samples import Sample, Scored
from steerward.clients._shared import SharedBatches
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest, UnknownObjective, brief

RewardFunction = Callable[..., Any]
"""Called with `prompts`, `completions` and every other column; gives one number a completion."""

# Batches whose columns are not all asked for yet: training, evaluation, and some left behind.
_MAX_BATCHES = 8
_PREFIX = "steerward_"
_SCORE = f"{_PREFIX}score"


def reward_funcs(
    url: str = DEFAULT_BASE_URL,
    *,
    objectives: Sequence[str] | None = None,
    score: bool = True,
    asynchronous: bool = False,
    log_gates: bool = True,
    **settings: Unpack[Settings],
) -> list[Any]:
    """Return one function a column, which share one scoring call a batch.

    The first is `steerward_score`, if asked for; then `steerward_<objective>` each. TRL adds the
    columns up by `reward_weights` of its own: `[1.0] + [0.0] * K` trains on the score and logs
    the objectives.

    Args:
        url: Where the server is.
        objectives: Columns beside the score; None asks the server for all of them, at once.
        score: Whether the score is a column.
        asynchronous: Whether the functions are `async def`; TRL then runs them together.
        log_gates: Whether the mean gates go to `log_metric`, and each prompt's largest to
            `log_extra`, where TRL passes those.
        settings: `model`, `weights` or `direction` for the score, `api_key`, `timeout_s` of an
            attempt, `deadline_s` of a batch with all its retries, and `on_error`: "none" gives
            None in every column of a sample that cannot be scored, which TRL leaves out.

    Raises:
        InvalidRequest: If no column is left, or two have one name.
        SteerwardError: If the server is asked for its objectives and does not answer.
    """
    scoring = scorer(url, **settings)
    names = scoring.objectives() if objectives is None else list(objectives)
    columns = Columns(
        scoring,
        _columns(names, score=score),
        asynchronous=asynchronous,
        log_gates=log_gates,
        identity=uuid.uuid4().hex,
    )
    return [getattr(columns, name) for name in columns.names]


def _columns(objectives: Sequence[str], *, score: bool) -> dict[str, str | None]:
    """Return the objective of each column by its name; None for the score."""
    columns: dict[str, str | None] = {_SCORE: None} if score else {}
    for objective in objectives:
        if f"{_PREFIX}{objective}" in columns:
            raise InvalidRequest(
                f"two columns would have the name {brief(f'{_PREFIX}{objective}')!r}, and TRL logs "
                "by name; name the objectives that you want, each once, or pass score=False",
                param="objectives",
            )
        columns[f"{_PREFIX}{objective}"] = objective
    if not columns:
        raise InvalidRequest(
            "no column is left; ask for the score or for an objective", param="objectives"
        )
    return columns


_shared: dict[str, SharedBatches] = {}
_shared_lock = threading.Lock()


class Columns:
    """Reward functions as methods by column name.

    Methods are what TRL, of any version, asks the name of and sees to be `async def`, and what
    can be pickled for the process that its asynchronous trainer spawns; partial functions and
    closures fail at one or the other.

    Args:
        settings: That score.
        columns: Objective by column name; None for the score.
        asynchronous: Whether the methods are `async def`.
        log_gates: Whether gates are logged.
        identity: Copies with the same one share their calls.
    """

    def __init__(
        self,
        settings: Scorer,
        columns: Mapping[str, str | None],
        *,
        asynchronous: bool,
        log_gates: bool,
        identity: str,
    ) -> None:
        self._settings = settings
        self._columns = columns
        self._asynchronous = asynchronous
        self._log_gates = log_gates
        self._identity = identity

    @property
    def names(self) -> list[str]:
        """Of the columns, in order."""
        return list(self._columns)

    def __getattr__(self, name: str) -> RewardFunction:
        """Return the function of a column."""
        if name.startswith("__") or name not in self._columns:
            raise AttributeError(name)
        function = _asynchronous(name) if self._asynchronous else _blocking(name)
        function.__name__ = function.__qualname__ = name
        return MethodType(function, self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a copy is made of, in another process too."""
        settings = (self._settings, dict(self._columns))
        return _restored, (*settings, self._asynchronous, self._log_gates, self._identity)

    def start(
        self, column: str, prompts: Sequence[Any], completions: Sequence[Any], more: dict[str, Any]
    ) -> concurrent.futures.Future[list[Scored | None]]:
        """Return the call that scores a batch, which may have been started by another column.

        Raises:
            InvalidRequest: If a sample is not text alone.
        """
        if any(more.get("tools") or ()):
            raise InvalidRequest(
                "the dataset has a column `tools`, which reward models cannot read; remove it",
                param="tools",
            )
        with _shared_lock:
            batches = _shared.setdefault(
                self._identity,
                SharedBatches(num_columns=len(self._columns), max_batches=_MAX_BATCHES),
            )
        explain = self._log_gates and more.get("log_metric") is not None
        return batches.take(
            column,
            prompts,
            completions,
            lambda: self._settings.start(_samples(prompts, completions), explain=explain),
        )

    def read(
        self, column: str, scored: Sequence[Scored | None], more: dict[str, Any]
    ) -> list[float | None]:
        """Return a column of the scores; the first column logs the gates.

        Raises:
            UnknownObjective: If the model does not have the objective.
        """
        if self._log_gates and column == self.names[0]:
            _log_gates(scored, more)
        objective = self._columns[column]
        if objective is None:
            return [None if found is None else found.score for found in scored]
        return [None if found is None else _reward(found, objective) for found in scored]


def _restored(
    settings: Scorer,
    columns: dict[str, str | None],
    asynchronous: bool,
    log_gates: bool,
    identity: str,
) -> Columns:
    return Columns(
        settings, columns, asynchronous=asynchronous, log_gates=log_gates, identity=identity
    )


def _blocking(name: str) -> Any:
    def rewards(
        columns: Columns, prompts: Sequence[Any], completions: Sequence[Any], **more: Any
    ) -> list[float | None]:
        return columns.read(name, columns.start(name, prompts, completions, more).result(), more)

    return rewards


def _asynchronous(name: str) -> Any:
    async def rewards(
        columns: Columns, prompts: Sequence[Any], completions: Sequence[Any], **more: Any
    ) -> list[float | None]:
        answer = columns.start(name, prompts, completions, more)
        # The others wait for the same answer: one that is cancelled must not take it from them.
        return columns.read(name, await asyncio.shield(asyncio.wrap_future(answer)), more)

    return rewards


def _samples(prompts: Sequence[Any], completions: Sequence[Any]) -> list[Sample]:
    return [
        Sample(
            plain_prompt(prompt, param=f"prompts[{i}]"),
            plain_answer(completion, param=f"completions[{i}]"),
        )
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _reward(scored: Scored, objective: str) -> float:
    if objective not in scored.rewards:
        raise UnknownObjective(
            f"the reward model has no objective {brief(objective)!r}; it has "
            f"{', '.join(map(brief, scored.rewards))}",
            param="objectives",
        )
    return scored.rewards[objective]


def _log_gates(scored: Sequence[Scored | None], more: dict[str, Any]) -> None:
    gates = [found.gates if found is not None else None for found in scored]
    there = [found for found in gates if found]
    log_metric, log_extra = more.get("log_metric"), more.get("log_extra")
    if log_metric is not None:
        for name in there[0] if there else ():
            mean = sum(found[name] for found in there) / len(there)
            log_metric(f"{_PREFIX}gate/{name}", mean)
    if log_extra is not None and there:
        largest = [max(found, key=lambda name: found[name]) if found else "" for found in gates]
        log_extra(f"{_PREFIX}largest_gate", largest)
