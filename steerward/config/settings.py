"""What all settings share, and how they are filled: defaults, TOML files, environment, flags."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

ENVIRONMENT_PREFIX = "STEERWARD_"
POSITIONAL = "positional"
"""Marks a field that is an argument of the command line and not a flag."""

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen, complete, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    reads_environment: ClassVar[bool] = False
    """Whether variables of the environment set the fields too: for what runs in containers."""


def load_settings(
    schema: type[SettingsT],
    flags: Mapping[str, Any],
    *,
    files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> SettingsT:
    """Return settings from TOML files left to right, then environment, then flags.

    Raises:
        pydantic.ValidationError: If a value does not fit or a key is unknown.
        OSError: If a file cannot be read.
        ValueError: If a file is not TOML, or a variable that holds an object is not JSON.
    """
    values: dict[str, Any] = {}
    for path in files:
        with path.open("rb") as file:
            values.update(tomllib.load(file))
    values.update(_from_environment(schema, os.environ if environment is None else environment))
    values.update(flags)
    return schema.model_validate(values)


def _from_environment(schema: type[Settings], environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        text = environment.get(environment_name(name))
        if text is None or not schema.reads_environment:
            continue
        kind = str(field.annotation)
        if "list" in kind:
            found[name] = [part.strip() for part in text.split(",")]
        else:
            found[name] = json.loads(text) if "dict" in kind else text
    return found


def environment_name(field: str) -> str:
    """Return the environment variable of a field."""
    return ENVIRONMENT_PREFIX + field.upper()
