"""From turns that somebody sent to the item that is scored, with errors in the sender's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.items import Message, ScoreItem
from steerward.protocol.validation import invalid_request

_SURROGATE = re.compile("[\ud800-\udfff]")


def conversation(messages: Sequence[Message], *, place: str) -> ScoreItem:
    """Return the item of a conversation that ends with the assistant's turn.

    Raises:
        InvalidRequest: If its turns cannot be scored; the place in the request is named.
    """
    try:
        return ScoreItem(messages=list(messages))
    except ValidationError as error:
        raise at(place, invalid_request(error.errors())) from None


def at(place: str, error: InvalidRequest) -> InvalidRequest:
    """Return an error with the place in the request that it speaks of."""
    return type(error)(f"{place}: {error.message}", param=place)


def without_halves(texts: Iterable[str]) -> tuple[list[str], int]:
    """Return texts with every lone surrogate replaced by U+FFFD, and how many there were.

    Byte-level decoders of policies cut characters, and JSON escapes carry the halves. U+FFFD is
    what other decoders make of such bytes, so the reward model has seen it.
    """
    found = [_SURROGATE.subn("\ufffd", text) for text in texts]
    return [text for text, _ in found], sum(count for _, count in found)
