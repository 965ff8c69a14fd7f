"""From what trainers hold, messages or plain text, to the prompt and the answer to be scored.

Nothing is guessed: tools, pictures and answers that were begun for the policy are refused, since
a reward model would score another text than the one that was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from steerward.protocol.errors import InvalidRequest, brief

PlainPrompt = str | list[dict[str, str]]
"""One user turn, or messages that end with a user or tool turn."""


def plain_prompt(prompt: object, *, param: str = "prompt") -> PlainPrompt:
    """Return a prompt as the wire takes it.

    Args:
        prompt: A string, or messages; a list, a tuple or an array.
        param: Where the caller has it, for the error.

    Raises:
        InvalidRequest: If it is neither, ends with an assistant turn, or holds more than text.
    """
    if isinstance(prompt, str):
        return prompt
    turns = _turns(prompt, param=param)
    if turns[-1]["role"] == "assistant":
        raise InvalidRequest(
            f"{param} ends with an assistant turn, the beginning of an answer; a score is of a "
            "whole answer to a user turn: end the prompt before it, and put it in front of the "
            "completion",
            param=param,
        )
    return turns


def plain_answer(answer: object, *, param: str = "completion") -> str:
    """Return an answer as text.

    Args:
        answer: A string, or one assistant message in a list.
        param: Where the caller has it, for the error.

    Raises:
        InvalidRequest: If it is neither: several turns, a call of a tool, or more than text.
    """
    if isinstance(answer, str):
        return answer
    turns = _turns(answer, param=param)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        roles = brief(", ".join(turn["role"] for turn in turns))
        raise InvalidRequest(
            f"{param} has the turns {roles}; one assistant turn can be scored: use no tools, or "
            "pass the turns before the last as part of the prompt",
            param=param,
        )
    return turns[0]["content"]


def _turns(messages: object, *, param: str) -> list[dict[str, str]]:
    if not isinstance(messages, Iterable) or isinstance(messages, Mapping):
        kind = type(cast("object", messages)).__name__
        raise InvalidRequest(
            f"{param} is of type {kind}; give text, or a list of messages with role and content",
            param=param,
        )
    turns = [
        _turn(message, param=f"{param}[{i}]")
        for i, message in enumerate(cast("Iterable[object]", messages))
    ]
    if not turns:
        raise InvalidRequest(f"{param} has no messages; give at least one", param=param)
    return turns


def _turn(message: object, *, param: str) -> dict[str, str]:
    fields: Mapping[str, Any] = {}
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, Any]", message)
    if "role" not in fields or "content" not in fields:
        raise InvalidRequest(f"{param} is no message; it needs role and content", param=param)
    if fields.get("tool_calls"):
        raise InvalidRequest(
            f"{param} calls tools, which no reward model here can read; leave such samples out",
            param=f"{param}.tool_calls",
        )
    return {"role": str(fields["role"]), "content": _text(fields["content"], param=param)}


def _text(content: object, *, param: str) -> str:
    if isinstance(content, str):
        return content
    parts = cast("list[Any]", content) if isinstance(content, list) else [None]
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(
            text := cast("Mapping[str, Any]", part).get("text"), str
        ):
            raise InvalidRequest(
                f"{param}.content is not text alone; give a string or text parts",
                param=f"{param}.content",
            )
        texts.append(text)
    return "".join(texts)
