"""Settings of the routes that speak other protocols: what their callers cannot say, by a name."""

from __future__ import annotations

import re
from typing import Self

from pydantic import model_validator

from steerward.config.policy import PolicyConfig
from steerward.config.settings import Settings
from steerward.protocol.directions import PreferenceDirection, check_weights
from steerward.protocol.errors import InvalidDirection
from steerward.protocol.transcripts import TemplateName

# A part of a path, without what callers split their settings at.
_PROFILE_NAME = re.compile(r"[A-Za-z0-9_-]+")


class CompatProfile(Settings):
    """What requests to `/p/NAME/...` are scored with."""

    model: str | None = None
    """Name of the reward model."""
    direction: str | dict[str, float] | None = None
    """Preference direction by objective, or the name of one in profiles; its score is the one
    that is answered."""
    weights: dict[str, float] | None = None
    """Weights by objective in place of the gates; their score is the one that is answered."""
    template: TemplateName | None = None
    """Markup of texts in which prompt and answer are joined. Default: what they begin with."""


class CompatConfig(PolicyConfig):
    """What the routes of other protocols take from the settings."""

    compat_profiles: dict[str, CompatProfile] = {}
    """JSON object, or TOML tables such as [compat_profiles.safe]: model, direction or weights, and
    template by the name that a caller of another protocol puts into its URL, as in
    /p/safe/get_reward. Directions in profiles are such names too."""

    @model_validator(mode="after")
    def _compat_profiles_fit(self) -> Self:
        for name, profile in self.compat_profiles.items():
            try:
                self._check_profile(name, profile)
            except (ValueError, InvalidDirection) as error:
                raise ValueError(f"compat profile {name!r}: {error}") from None
        return self

    def _check_profile(self, name: str, profile: CompatProfile) -> None:
        if not _PROFILE_NAME.fullmatch(name):
            raise ValueError("a name has letters, digits, - and _ only, since it is part of a URL")
        if name in self.profiles:
            raise ValueError("profiles has a direction of this name already; choose another")
        if profile.direction is not None and profile.weights is not None:
            raise ValueError("give either direction or weights: callers read one number")
        if isinstance(profile.direction, str) and profile.direction not in self.profiles:
            known = ", ".join(self.profiles) or "none"
            raise ValueError(
                f"there is no direction {profile.direction!r} in profiles; known: {known}"
            )
        if isinstance(profile.direction, dict):
            PreferenceDirection.from_mapping(profile.direction)
        if profile.weights is not None:
            check_weights(profile.weights)
