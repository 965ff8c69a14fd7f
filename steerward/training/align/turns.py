"""Prompts and completions as TRL has them, text or messages, as reward models read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steerward.protocol.errors import InvalidRequest


def prompt_turns(prompt: Any) -> list[dict[str, str]]:
    """Return a prompt as turns; text is one turn of the user's.

    Raises:
        InvalidRequest: If it is neither text nor messages of text.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [_turn(message, param="prompts") for message in prompt]


def answer_text(completion: Any) -> str:
    """Return a completion as text.

    Raises:
        InvalidRequest: If it is neither text nor one assistant message of text.
    """
    if isinstance(completion, str):
        return completion
    turns = [_turn(message, param="completions") for message in completion]
    if [turn["role"] for turn in turns] != ["assistant"]:
        raise InvalidRequest(
            f"a completion has {len(turns)} turns; one assistant turn can be scored",
            param="completions",
        )
    return turns[0]["content"]


def _turn(message: Any, *, param: str) -> dict[str, str]:
    fields = message if isinstance(message, Mapping) else {}
    role, content = fields.get("role"), fields.get("content")
    if not isinstance(role, str) or not isinstance(content, str) or fields.get("tool_calls"):
        raise InvalidRequest(
            f"{param} hold a message that is not text alone, with role and content; pictures and "
            "calls of tools cannot be scored here",
            param=param,
        )
    return {"role": role, "content": content}
