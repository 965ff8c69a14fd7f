"""From a settings schema to command-line options: one flag a field, its docstring the help."""

from __future__ import annotations

import argparse
import inspect
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from steerward.config import (
    POSITIONAL,
    Settings,
    SettingsT,
    environment_name,
    load_settings,
)


def add_options(parser: argparse.ArgumentParser, schema: type[Settings]) -> None:
    """Give a parser one option for each field of a schema."""
    parser.description = inspect.cleandoc(schema.__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    # What the command adds comes before what it shares with others.
    own = inspect.get_annotations(schema)
    for name in sorted(schema.model_fields, key=lambda name: name not in own):
        _add_option(parser, name, schema)
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="TOML file with settings by their names here, dashes as underscores; repeatable, "
        "later files win, environment and flags win over files",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved settings as JSON and stop"
    )


def read_options(
    parser: argparse.ArgumentParser, schema: type[SettingsT], parsed: argparse.Namespace
) -> SettingsT:
    """Return the settings of a parsed command line; exits with status 2 if they do not fit."""
    given = vars(parsed)
    flags = {name: given[name] for name in schema.model_fields if given.get(name) is not None}
    try:
        settings = load_settings(schema, flags, files=parsed.config)
    except ValidationError as error:
        parser.error("; ".join(_problem(schema, detail) for detail in error.errors()))
    except (OSError, ValueError) as error:
        parser.error(f"--config or environment: {error}")
    if parsed.dry_run:
        print(settings.model_dump_json(indent=2))
        raise SystemExit(0)
    return settings


def _add_option(parser: argparse.ArgumentParser, name: str, schema: type[Settings]) -> None:
    field = schema.model_fields[name]
    kind, choices = _kind(field.annotation)
    options: dict[str, Any] = {"default": None, "help": _help(name, field, schema)}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif kind is list:
        options |= {"action": "append", "metavar": name.upper()}
        if _holds_objects(field.annotation):
            options |= {"type": _json_object, "metavar": "JSON"}
    elif kind is dict:
        options |= {"type": _json_object, "metavar": "JSON"}
    elif choices:
        options["choices"] = choices
    else:
        options["metavar"] = "FILE" if kind is Path else _METAVARS.get(kind, "TEXT")
    if POSITIONAL in field.metadata:
        number = "+" if kind is list else None
        parser.add_argument(
            name, type=str, nargs=number, metavar=name.upper(), help=options["help"]
        )
    else:
        parser.add_argument(_flag(name), dest=name, **options)


_METAVARS: dict[Any, str] = {int: "N", float: "X"}


def _kind(annotation: Any) -> tuple[Any, Sequence[str]]:
    """Return the plain type behind an annotation, and its choices if it is a literal."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return str, [str(choice) for choice in typing.get_args(annotation)]
    if origin in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in typing.get_args(annotation) if arg is not type(None))
        return _kind(inner)
    if origin in (tuple, list):
        return list, []
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    plain = origin or annotation
    return (dict if _is_object(plain) else plain), []


def _holds_objects(annotation: Any) -> bool:
    return any(_is_object(part) for part in typing.get_args(annotation))


def _is_object(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _help(name: str, field: FieldInfo, schema: type[Settings]) -> str:
    text = " ".join((field.description or "").split())
    notes: list[str] = []
    says_nothing = field.default is None or field.default is False or field.default == []
    if not field.is_required() and not says_nothing:
        default = field.default
        if isinstance(default, BaseModel | dict):
            default = _as_json(default)
        if isinstance(default, list):
            default = " ".join(str(part) for part in typing.cast("list[object]", default))
        notes.append(f"default: {default}")
    if schema.reads_environment and POSITIONAL not in field.metadata:
        notes.append(f"env: {environment_name(name)}")
    return f"{text} ({'; '.join(notes)})".replace("%", "%%") if notes else text


def _as_json(value: BaseModel | dict[Any, Any]) -> str:
    return json.dumps(value, default=lambda one: one.model_dump())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _json_object(text: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("give a JSON object, as in '{\"helpfulness\": 1}'")
    return typing.cast("dict[str, Any]", value)


def _problem(schema: type[Settings], detail: Any) -> str:
    loc = detail["loc"]
    message = detail["msg"].removeprefix("Value error, ")
    if not loc:
        return message
    if loc[0] not in schema.model_fields:
        return f"unknown setting {loc[0]!r}"
    field = schema.model_fields[loc[0]]
    shown = "" if SecretStr in typing.get_args(field.annotation) else f", got {detail['input']!r}"
    name = loc[0].upper() if POSITIONAL in field.metadata else _flag(loc[0])
    return f"{name}: {message}{shown}"
