"""From pydantic's findings to one error that names each place and never repeats a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steerward.protocol.errors import InvalidRequest

# Tags of the two forms of a prompt; not places in the request.
_BRANCHES = {"text", "turns"}


def invalid_request(errors: Sequence[Any]) -> InvalidRequest:
    """Return what is wrong with a request, naming each place; values are never repeated."""
    places: list[str] = []
    lines: list[str] = []
    for error in errors:
        place = "" if error["type"] == "json_invalid" else _place(error["loc"])
        if error["type"] == "json_invalid":
            reason = f"the body is not JSON: {error['ctx']['error']}"
        elif error["type"] == "extra_forbidden":
            reason = "unknown key; remove it or check the spelling"
        else:
            reason = error["msg"].removeprefix("Value error, ")
        line = f"{place}: {reason}" if place else reason
        if line not in lines:
            lines.append(line)
            places.append(place)
    shown = "; ".join(lines[:5])
    more = f" (and {len(lines) - 5} more)" if len(lines) > 5 else ""
    return InvalidRequest(shown + more, param=places[0] or None)


def _place(loc: Sequence[int | str]) -> str:
    """Return a pydantic location as a path such as ``items[3].candidates[1]``."""
    place = ""
    for part in loc[1:] if loc and loc[0] == "body" else loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in _BRANCHES:
            place += f".{part}" if place else part
    return place
