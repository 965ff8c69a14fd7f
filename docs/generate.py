"""Write the reference pages from the code: ``python -m docs.generate``.

docs/api.md follows the OpenAPI document, docs/operations.md the settings, metrics and errors. A
test compares the files with what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic.fields import FieldInfo

from steerward.cli.commands import COMMANDS, Command
from steerward.config import POSITIONAL, ServeConfig, Settings, environment_name
from steerward.metrics import Metrics
from steerward.protocol import errors
from steerward.protocol.errors import SteerwardError
from steerward.server.app import create_app

HERE = Path(__file__).parent
_GENERATED = "<!-- Written by `python -m docs.generate`; change the code, not this page. -->"


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {"api.md": _api(), "operations.md": _operations()}


def _operations() -> str:
    lines = [_GENERATED, "# Operations", "", "## Settings", ""]
    lines += [
        "Each setting is a flag and a key of a `--config` TOML file (dashes as underscores); those "
        "of `serve` and `score` are environment variables too. Later sources win: defaults, files "
        "left to right, environment, flags. `--dry-run` prints what a command resolves to.",
        "",
    ]
    for name, command in _leaves(COMMANDS):
        assert command.schema is not None
        lines += [f"### `steerward {name}`", "", "| setting | default | meaning |", "|---|---|---|"]
        own = command.schema.__annotations__
        fields = sorted(command.schema.model_fields.items(), key=lambda item: item[0] not in own)
        lines += [_setting(field_name, field, command.schema) for field_name, field in fields]
        lines.append("")
    lines += ["## Metrics", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
    lines += _metrics()
    lines += ["", "## Errors", "", "| code | HTTP | retry | meaning |", "|---|---|---|---|"]
    lines += _errors()
    lines += [
        "",
        'Every error answer is `{"error": {"message", "type", "param", "code"}}`; `param` '
        "is the place in the request. 429 and 503 carry `Retry-After` in seconds. Every answer "
        "carries `x-request-id`; scores carry `x-tokenisation-ms`, `x-queue-ms`, "
        "`x-inference-ms`, `x-total-ms` and `x-weight-version`; completions carry "
        "`x-first-token-ms`, `x-weight-version` and, unless they are streamed, `x-total-ms`.",
    ]
    return "\n".join(lines) + "\n"


def _leaves(commands: Any, prefix: str = "") -> Iterator[tuple[str, Command]]:
    for command in cast("list[Command]", commands):
        if command.children:
            yield from _leaves(command.children, f"{prefix}{command.name} ")
        else:
            yield f"{prefix}{command.name}", command


def _setting(name: str, field: FieldInfo, schema: type[Settings]) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    if POSITIONAL in field.metadata:
        return f"| `{name.upper()}` | required | {text} |"
    default = "required" if field.is_required() else f"`{field.default}`"
    shown = f"`--{name.replace('_', '-')}`"
    if schema.reads_environment:
        shown += f"<br>`{environment_name(name)}`"
    return f"| {shown} | {default} | {text} |"


def _metrics() -> list[str]:
    lines: list[str] = []
    for metric in vars(Metrics()).values():
        if not hasattr(metric, "_labelnames"):
            continue
        kind = type(metric).__name__.lower()
        name = metric._name + ("_total" if kind == "counter" else "")
        labels = ", ".join(metric._labelnames)
        lines.append(f"| `{name}` | {kind} | {labels} | {metric._documentation} |")
    return lines


def _errors() -> list[str]:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, SteerwardError)
    ]
    lines: list[str] = []
    for cls in classes:
        if cls is SteerwardError:
            continue
        meaning = (cls.__doc__ or "").strip().splitlines()[0]
        status = str(cls.status or "–")
        retry = "yes" if cls.is_retryable else "no"
        lines.append(f"| `{cls.code}` | {status} | {retry} | {meaning} |")
    return lines


def _api() -> str:
    document = create_app(ServeConfig(), {}, {}, Metrics()).openapi()
    lines = [_GENERATED, "# HTTP API", ""]
    lines += [
        "The live server shows the same with a form to try it at `/docs`, and the OpenAPI "
        "document at `/openapi.json`.",
        "",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += [f"## `{method.upper()} {path}`", "", operation.get("description", ""), ""]
            lines += _bodies(operation)
    lines += ["# Types", ""]
    for name, schema in document["components"]["schemas"].items():
        if name not in ("HTTPValidationError", "ValidationError"):
            lines += _type(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _bodies(operation: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if body := operation.get("requestBody"):
        kinds = [_body(name, content) for name, content in body["content"].items()]
        lines += [f"Body: {' or '.join(kinds)}", ""]
    lines += ["| status | answer |", "|---|---|"]
    for status, answer in operation["responses"].items():
        contents = answer.get("content", {})
        kind = " or ".join(_content(name, contents[name]) for name in sorted(contents))
        described = answer["description"]
        text = f"{described}: {kind}" if kind and described != "Successful Response" else kind
        lines.append(f"| {status} | {text or described} |")
    return [*lines, ""]


def _body(media_type: str, content: Mapping[str, Any]) -> str:
    if media_type == "application/json":
        return _kind(content["schema"])
    fields = ", ".join(f"`{name}`" for name in content["schema"]["properties"])
    return f"`{media_type}` with {fields}"


def _content(media_type: str, content: Mapping[str, Any]) -> str:
    if media_type != "application/json":
        return f"`{media_type}`"
    return _kind(content["schema"]) if content.get("schema") else ""


def _type(name: str, schema: Mapping[str, Any]) -> list[str]:
    lines = [f"## {name}", "", " ".join(schema.get("description", "").split()), ""]
    if not schema.get("properties"):
        return lines
    required = set(schema.get("required", ()))
    lines += ["| key | type | meaning |", "|---|---|---|"]
    for key, field in schema["properties"].items():
        text = " ".join(field.get("description", "").split()).replace("|", "\\|")
        mark = "" if key in required else " (optional)"
        lines.append(f"| `{key}` | {_kind(field)}{mark} | {text} |")
    return [*lines, ""]


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_kind(option) for option in schema[union])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum") or [schema["const"]]
        return " or ".join(f"`{value}`" for value in values)
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping of name to {_kind(schema['additionalProperties'])}"
    return str(kind)


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
