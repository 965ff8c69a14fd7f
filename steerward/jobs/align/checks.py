"""What is refused of a job's settings before it is queued. Pure: nothing is asked of a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from steerward.protocol.alignment import SCORE, CgpoSettings, ModpoSettings, OnlineSettings
from steerward.protocol.errors import InvalidRequest, UnknownObjective, brief
from steerward.protocol.fine_tuning import AlignSettings, JobMethod

RULES = (
    "exact_answer",
    "numeric_answer",
    "length",
    "keywords",
    "pattern",
    "language",
    "json_schema",
    "instruction_following",
    "reward_threshold",
)
"""Types of judges that run nothing of a client's, and call nobody."""


def check_objectives(
    method: JobMethod, settings: AlignSettings, *, known: Sequence[str], has_score: bool, model: str
) -> None:
    """Refuse rewards that the reward model does not give.

    Args:
        method: Of the job.
        settings: Of the method.
        known: Objectives of the reward model.
        has_score: Whether it has a score of its own.
        model: Its name.

    Raises:
        UnknownObjective: If it does not have one; the place and the known ones are told.
        InvalidRequest: If it has no score of its own, and that is asked for.
    """
    for place, names in _objectives(settings):
        param = f"method.{method}.{place}"
        for name in names:
            if name == SCORE and not has_score:
                raise InvalidRequest(
                    f"{model} has several objectives and no gate, so it has no score of its own; "
                    f"name objectives in place of {SCORE!r}",
                    param=param,
                )
            if name != SCORE and name not in known:
                raise UnknownObjective(
                    f"{model} has no objective {brief(name)!r}; known: {', '.join(known)}, and "
                    f"{SCORE!r} for the gated score",
                    param=param,
                )


def _objectives(settings: AlignSettings) -> Sequence[tuple[str, Collection[str]]]:
    if isinstance(settings, ModpoSettings):
        return [("margins", settings.margins)]
    assert isinstance(settings, OnlineSettings)
    if isinstance(settings, CgpoSettings):
        rewards = [(f"tasks.{name}.reward", [t.reward]) for name, t in settings.tasks.items()]
        return [*rewards, ("logged", settings.logged)]
    return [("weights", settings.weights), ("logged", settings.logged)]


def check_judges(settings: CgpoSettings) -> None:
    """Refuse judges that run programs or call other servers, and those whose settings are wrong.

    Raises:
        InvalidRequest: If there is one; its place is told.
    """
    # Loads what judges need, which a server without jobs may not have.
    from steerward.judges import mixture_from_settings

    rewards = [*(task.reward for task in settings.tasks.values()), *settings.logged]
    columns: dict[str, Any] = dict.fromkeys(rewards, _unused)
    for name, task in settings.tasks.items():
        param = f"method.cgpo.tasks.{brief(name)}.judges"
        for place, judge in enumerate(task.judges):
            kind = judge.get("type")
            if kind not in RULES:
                raise InvalidRequest(
                    f"{brief(str(kind))!r} is no judge of jobs, which run no programs and call no "
                    f"other server; take one of {', '.join(RULES)}, or run steerward align cgpo "
                    "on a machine of your own",
                    param=f"{param}[{place}].type",
                )
        try:
            mixture_from_settings({"judges": task.judges}, columns=columns)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, param=param) from error


def _unused(**_: Any) -> list[float | None]:
    raise AssertionError("settings are checked without a completion")
