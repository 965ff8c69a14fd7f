"""Preferences in uploaded files: a prompt with two responses, of which one is preferred.

    {"prompt" or "messages": ..., "chosen": ..., "rejected": ...}
    {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}

The second is OpenAI's for its method `dpo`. A response is text, or a list of one assistant turn.
`margin_chosen` and `margin_rejected` are rewards of other objectives: a number, or a list of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from steerward.jobs.row_parts import refuse_unknown, text, turns_of
from steerward.protocol.errors import InvalidRequest

_OURS = ("chosen", "rejected")
_OPENAI = ("preferred_output", "non_preferred_output")
_MARGINS = ("margin_chosen", "margin_rejected")
PAIR = frozenset({*_OURS, "input", *_OPENAI, *_MARGINS})
"""Keys of a row that only preferences have."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to a prompt."""

    chosen: str
    rejected: str
    margins: Mapping[str, float | list[float]]
    """Columns of rewards, where the row has them."""

    @property
    def num_margins(self) -> int:
        """Objectives whose rewards the row has."""
        side = self.margins.get(_MARGINS[0], [])
        return len(side) if isinstance(side, list) else 1


def is_preference(fields: Mapping[str, Any]) -> bool:
    """Return whether a row is a preference, right or wrong."""
    return not PAIR.isdisjoint(fields)


def pair_of(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], Pair]:
    """Return what holds the prompt of a preference, as `prompt` or `messages`, and the responses.

    Raises:
        InvalidRequest: If they are none.
    """
    keys, prompt = _OURS, fields
    if "input" in fields or not set(_OPENAI).isdisjoint(fields):
        keys, prompt = _OPENAI, _input(fields)
    chosen, rejected = (_response(fields, key) for key in keys)
    if chosen == rejected:
        raise InvalidRequest(f"{keys[0]} and {keys[1]} are equal; remove the row")
    _check_prompt(prompt)
    return prompt, Pair(chosen, rejected, _margins(fields))


def _input(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    given = fields.get("input")
    if not isinstance(given, dict):
        raise InvalidRequest("input: not an object with messages")
    known = {"messages", "tools", "parallel_tool_calls"}
    refuse_unknown(cast("dict[str, Any]", given), known=known, place="input.")
    if given.get("tools"):
        raise InvalidRequest("input.tools: policies here call none; remove them")
    wrong = {"prompt", "messages", *_OURS} & set(fields)
    if wrong:
        raise InvalidRequest(f"{', '.join(sorted(wrong))}: beside input; give one of the two forms")
    return {"messages": given.get("messages")}


def _check_prompt(prompt: Mapping[str, Any]) -> None:
    messages = prompt.get("messages")
    last: Any = cast("list[Any]", messages)[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and cast("dict[str, Any]", last).get("role") == "assistant":
        raise InvalidRequest(
            "messages: end with an assistant turn; the prompt ends with the user's, and the "
            "responses stand beside it"
        )


def _response(fields: Mapping[str, Any], key: str) -> str:
    if key not in fields:
        raise InvalidRequest(f"{key}: missing; a preference has two responses")
    given = fields[key]
    if isinstance(given, str):
        return text(given, place=key)
    turns = turns_of(given, place=key)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise InvalidRequest(f"{key}: neither text nor a list of one assistant turn")
    return turns[0]["content"]


def _margins(fields: Mapping[str, Any]) -> Mapping[str, float | list[float]]:
    given = [key for key in _MARGINS if key in fields]
    if not given:
        return {}
    if len(given) == 1:
        raise InvalidRequest(f"{given[0]}: alone; give {' and '.join(_MARGINS)}, or neither")
    chosen, rejected = (_numbers(fields[key], place=key) for key in _MARGINS)
    lengths = [len(side) if isinstance(side, list) else None for side in (chosen, rejected)]
    if lengths[0] != lengths[1]:
        raise InvalidRequest(f"{' and '.join(_MARGINS)}: not of the same objectives")
    return dict(zip(_MARGINS, (chosen, rejected), strict=True))


def _numbers(given: object, *, place: str) -> float | list[float]:
    if isinstance(given, list) and given:
        return [_number(value, place=place) for value in cast("list[object]", given)]
    return _number(given, place=place)


def _number(value: object, *, place: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # An integer of hundreds of digits is no such number either.
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise InvalidRequest(f"{place}: neither a finite number nor a list of them")
