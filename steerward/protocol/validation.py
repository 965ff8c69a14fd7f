"""From pydantic's findings to one error that names each place and never repeats a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steerward.protocol.errors import InvalidRequest, brief

# Tags of the two forms of a prompt, behind it; not places in the request.
_PROMPT_FORMS = {"text", "turns"}
# Says that a key of a mapping is wrong, and not its value.
_KEY = "[key]"
_MOST_SHOWN = 5


def invalid_request(errors: Sequence[Any]) -> InvalidRequest:
    """Return what is wrong with a request, naming each place; values are never repeated.

    The first few places are named and the rest is counted: a body can hold any number of them.
    """
    places: dict[str, str] = {}
    num_seen = 0
    for error in errors:
        if len(places) == _MOST_SHOWN:
            break
        num_seen += 1
        place = "" if error["type"] == "json_invalid" else _place(error["loc"])
        reason = _reason(error)
        places.setdefault(f"{place}: {reason}" if place else reason, place)
    num_left = len(errors) - num_seen
    more = f" (and {num_left} more)" if num_left else ""
    return InvalidRequest("; ".join(places) + more, param=next(iter(places.values())) or None)


def _reason(error: Any) -> str:
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        return "unknown key; remove it or check the spelling"
    return error["msg"].removeprefix("Value error, ")


def _place(loc: Sequence[int | str]) -> str:
    """Return a pydantic location as a path such as ``items[3].candidates[1]``."""
    place = ""
    before: int | str | None = None
    for part in loc[1:] if loc and loc[0] == "body" else loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part != _KEY and not (before == "prompt" and part in _PROMPT_FORMS):
            place += f".{brief(part)}" if place else brief(part)
        before = part
    return place
