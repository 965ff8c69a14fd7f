"""What a run wants of the reward model, read from the URL.

Callers of other protocols send bodies that have no room for it. No value needs a comma, since
some split their setting at commas:

    /get_reward?model=pocket&direction=helpfulness:0.97;verbosity:-0.26&template=chatml
    /p/concise/get_reward
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request

from steerward.config import CompatProfile, ServeConfig
from steerward.engine.served import ServedModel
from steerward.protocol.directions import PreferenceDirection, check_weights
from steerward.protocol.errors import (
    InvalidDirection,
    InvalidRequest,
    NotFound,
    UnknownObjective,
    brief,
)
from steerward.protocol.transcripts import TemplateName, known_template
from steerward.server.state import state_of

ScoreKind = Literal["score", "direction_score", "weighted_score"]

# The key has been checked by the route and goes no further.
_KNOWN = ("model", "direction", "weights", "template", "key")


@dataclass(frozen=True, slots=True)
class CompatOptions:
    """What the URL of a request says."""

    model: str | None = None
    """Name of the reward model; None: the caller's body or the only one decides."""
    direction: Mapping[str, float] | None = None
    weights: Mapping[str, float] | None = None
    template: TemplateName | None = None
    """Markup of texts in which prompt and answer are joined; None: what they begin with."""
    profile: str | None = None
    """Name in the path that the above came from."""

    @property
    def score_kind(self) -> ScoreKind:
        """Which score answers the request."""
        if self.direction is not None:
            return "direction_score"
        return "score" if self.weights is None else "weighted_score"


def read_options(request: Request, *, also: Collection[str] = ()) -> CompatOptions:
    """Return the options of a request: those of its profile, and those of its query.

    Args:
        request: Whose URL has them.
        also: Further options of the protocol, which its route reads.

    Raises:
        NotFound: If there is no such profile.
        InvalidRequest: If a key of the query is unknown, given twice, or set by the profile too;
            or if a value does not fit.
    """
    query = _query(request, also)
    name = request.path_params.get("profile")
    config = state_of(request).config
    profile = CompatProfile() if name is None else _profile(name, config)
    for key in query.keys() & profile.model_dump(exclude_none=True).keys():
        raise InvalidRequest(
            f"profile {brief(name or '')!r} sets {key} already; leave it out of the query",
            param=key,
        )
    direction = query.get("direction", profile.direction)
    weights = _numbers("weights", query["weights"]) if "weights" in query else profile.weights
    if direction is not None and weights is not None:
        raise InvalidRequest(
            "direction and weights are both given, and the answer has one number; leave one out",
            param="direction",
        )
    return CompatOptions(
        model=query.get("model", profile.model),
        direction=None if direction is None else _direction(direction, config),
        weights=None if weights is None else check_weights(weights),
        template=known_template(query.get("template", profile.template)),
        profile=name,
    )


def check_profiles(config: ServeConfig, engines: Mapping[str, ServedModel]) -> None:
    """Refuse to start with profiles that no request could be answered by.

    Raises:
        NotFound: If a profile names a model that is not served.
        UnknownObjective: If one names an objective that its model does not have.
    """
    for name, profile in config.compat_profiles.items():
        if profile.model is not None and profile.model not in engines:
            known = ", ".join(engines)
            raise NotFound(
                f"compat profile {name!r}: there is no model {profile.model!r} here; known: {known}"
            )
        scored_by = [profile.model] if profile.model is not None else list(engines)
        if len(scored_by) == 1:
            _check_objectives(name, profile, config, engines[scored_by[0]])


def _check_objectives(
    name: str, profile: CompatProfile, config: ServeConfig, engine: ServedModel
) -> None:
    direction = profile.direction
    named = config.profiles[direction] if isinstance(direction, str) else direction
    for values in (named, profile.weights):
        try:
            engine.model.objectives.vector(values or {})
        except UnknownObjective as error:
            raise UnknownObjective(f"compat profile {name!r}: {error.message}") from None


def _query(request: Request, also: Collection[str]) -> dict[str, str]:
    query: dict[str, str] = {}
    known = (*_KNOWN, *also)
    for key, value in request.query_params.multi_items():
        if key not in known:
            raise InvalidRequest(
                f"the URL has an unknown option {brief(key)!r}; known: {', '.join(known)}",
                param=brief(key),
            )
        if key in query:
            raise InvalidRequest(f"the URL gives {key} twice; give it once", param=key)
        query[key] = value
    query.pop("key", None)
    return query


def _profile(name: str, config: ServeConfig) -> CompatProfile:
    if name in config.compat_profiles:
        return config.compat_profiles[name]
    if name in config.profiles:
        return CompatProfile(direction=config.profiles[name])
    known = ", ".join([*config.compat_profiles, *config.profiles])
    raise NotFound(
        f"there is no profile {brief(name)!r} here; known: "
        f"{known or 'none; start the server with --compat-profiles or --profiles'}",
        param="profile",
    )


def _direction(given: str | Mapping[str, float], config: ServeConfig) -> Mapping[str, float]:
    """Return a direction from its numbers, or from its name among the settings' directions."""
    if isinstance(given, str):
        if ":" not in given:
            if given not in config.profiles:
                known = ", ".join(config.profiles) or "none; start the server with --profiles"
                raise InvalidDirection(
                    f"there is no direction {brief(given)!r} here; give numbers as in "
                    f"helpfulness:0.97;verbosity:-0.26, or a known name: {known}",
                    param="direction",
                )
            return config.profiles[given]
        given = _numbers("direction", given)
    PreferenceDirection.from_mapping(given)
    return given


def _numbers(key: str, text: str) -> dict[str, float]:
    """Return numbers by objective from `a:1;b:-0.5`."""
    numbers: dict[str, float] = {}
    for part in text.split(";"):
        name, separator, number = part.rpartition(":")
        name = name.strip()
        value = _number(number)
        if not separator or not name or value is None:
            raise InvalidDirection(
                f"{brief(part)!r} is no number of an objective; write "
                f"{key}=helpfulness:0.97;verbosity:0.26",
                param=key,
            )
        if name in numbers:
            raise InvalidDirection(f"{brief(name)!r} is given twice; give it once", param=key)
        numbers[name] = value
    return numbers


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
