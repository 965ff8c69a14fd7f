"""What is refused of a job's settings before it is queued. Pure: nothing is asked of a model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from steerward.protocol.alignment import (
    SCORE,
    CgpoSettings,
    ModpoSettings,
    WeightedSettings,
)
from steerward.protocol.errors import InvalidRequest, UnknownObjective, brief
from steerward.protocol.fine_tuning import AlignSettings, JobMethod
from steerward.protocol.mapl import MaplSettings
from steerward.protocol.rsf import RsfSettings

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
    method: JobMethod,
    settings: AlignSettings,
    *,
    known: Sequence[str],
    has_score: bool,
    model: str,
    num_margins: int = 0,
) -> None:
    """Refuse rewards that the reward model does not give, or that are named twice.

    Args:
        method: Of the job.
        settings: Of the method.
        known: Objectives of the reward model.
        has_score: Whether it has a score of its own.
        model: Its name.
        num_margins: Objectives whose rewards the rows bring themselves, for MODPO.

    Raises:
        UnknownObjective: If it does not have one; the place and the known ones are told.
        InvalidRequest: If it has no score of its own, and that is asked for, a name is given
            twice, or the rows have rewards of other objectives.
    """
    _check_logged(method, settings.logged)
    if isinstance(settings, ModpoSettings) and num_margins:
        _check_margins(settings, num_margins)
    for place, names in _objectives(settings, are_margins_there=num_margins > 0):
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


def asks_for_rewards(settings: RsfSettings | AlignSettings) -> bool:
    """Return whether a job of these settings asks a reward model for anything."""
    return not isinstance(settings, MaplSettings) or bool(settings.logged)


def _check_logged(method: JobMethod, logged: Sequence[str]) -> None:
    twice = next((name for name in logged if logged.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(
            f"{brief(twice)!r} stands twice in logged; name each objective once",
            param=f"method.{method}.logged",
        )


def _check_margins(settings: ModpoSettings, num_margins: int) -> None:
    if len(settings.margins) != num_margins:
        raise InvalidRequest(
            f"{len(settings.margins)} margins are named, and each row of the training file has "
            f"those of {num_margins}; name each of these, in their order, or leave them out of "
            "the rows",
            param="method.modpo.margins",
        )


def _objectives(
    settings: AlignSettings, *, are_margins_there: bool
) -> Sequence[tuple[str, Collection[str]]]:
    """Return what the reward model is asked for, by place."""
    if isinstance(settings, ModpoSettings):
        margins = () if are_margins_there else settings.margins
        return [("margins", margins), ("logged", settings.logged)]
    if isinstance(settings, MaplSettings):
        return [("logged", settings.logged)]
    if isinstance(settings, CgpoSettings):
        rewards = [(f"tasks.{name}.reward", [t.reward]) for name, t in settings.tasks.items()]
        return [*rewards, ("logged", settings.logged)]
    assert isinstance(settings, WeightedSettings)
    return [
        (place, [name for name in names if name not in settings.rules])
        for place, names in (("weights", settings.weights), ("logged", settings.logged))
    ]


def check_judges(method: JobMethod, settings: AlignSettings) -> None:
    """Refuse judges that run programs or call other servers, and those whose settings are wrong.

    Raises:
        InvalidRequest: If there is one; its place is told.
    """
    if isinstance(settings, WeightedSettings):
        for name, rule in settings.rules.items():
            _check(f"method.{method}.rules.{brief(name)}", [rule], {}, is_list=False)
    if isinstance(settings, CgpoSettings):
        rewards = [*(task.reward for task in settings.tasks.values()), *settings.logged]
        columns = dict.fromkeys(rewards, _unused)
        for name, task in settings.tasks.items():
            _check(f"method.cgpo.tasks.{brief(name)}.judges", task.judges, columns, is_list=True)


def _check(
    param: str, judges: Sequence[Mapping[str, Any]], columns: Mapping[str, Any], *, is_list: bool
) -> None:
    # Loads what judges need, which a server without jobs may not have.
    from steerward.judges import mixture_from_settings

    for place, judge in enumerate(judges):
        kind = judge.get("type")
        if kind not in RULES:
            raise InvalidRequest(
                f"{brief(str(kind))!r} is no judge of jobs, which run no programs and call no "
                f"other server; take one of {', '.join(RULES)}, or run steerward align on a "
                "machine of your own",
                param=f"{param}[{place}].type" if is_list else f"{param}.type",
            )
    try:
        if not _is_json(judges):
            raise InvalidRequest("a judge has a number that is not finite; give one that is")
        mixture_from_settings({"judges": judges}, columns=columns)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param=param) from error
    # Of a pattern or a schema that is too much for the library that reads it.
    except (RecursionError, OverflowError) as error:
        raise InvalidRequest(
            f"a judge is nested too deeply or counts too far ({type(error).__name__}); make it "
            "simpler",
            param=param,
        ) from error


def _is_json(judges: Sequence[Any]) -> bool:
    """Return whether a process can be told of judges: JSON has no number that is not finite."""
    try:
        json.dumps(judges, allow_nan=False)
    except ValueError:
        return False
    return True


def _unused(**_: Any) -> list[float | None]:
    raise AssertionError("settings are checked without a completion")
