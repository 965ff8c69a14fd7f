"""The two shapes of OpenAI's answers: chat completions and text completions, whole or in chunks."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from steerward.policy.generation import TokenChoice, TokenLogprob

Logprobs = Sequence[TokenLogprob]
# JSON has no infinity; this is OpenAI's word for it.
_LEAST_LOGPROB = -9999.0


class AnswerShape(Protocol):
    """How completions are written down. One instance writes the answer of one request."""

    id_prefix: str
    whole_object: str
    chunk_object: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return what a stream says of a choice before it has any text; None: nothing."""
        ...

    def piece(self, index: int, text: str, logprobs: Logprobs) -> dict[str, Any]:
        """Return what is new of a choice."""
        ...

    def closing(
        self, index: int, finish_reason: str, reward: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the end of a choice, without text."""
        ...

    def whole(
        self,
        index: int,
        text: str,
        logprobs: Logprobs,
        finish_reason: str,
        reward: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return a choice that is complete."""
        ...


class ChatShape:
    """Messages and deltas.

    Args:
        has_logprobs: Whether they were asked for.
    """

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, *, has_logprobs: bool) -> None:
        self._has_logprobs = has_logprobs

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return the chunk that names the role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, index: int, text: str, logprobs: Logprobs) -> dict[str, Any]:
        """Return what is new of a choice."""
        return {
            "index": index,
            "delta": {"content": text},
            "logprobs": self._logprobs(logprobs),
            "finish_reason": None,
        }

    def closing(
        self, index: int, finish_reason: str, reward: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the end of a choice, without text."""
        return {
            "index": index,
            "delta": {},
            "logprobs": None,
            "finish_reason": finish_reason,
            "reward": reward,
        }

    def whole(
        self,
        index: int,
        text: str,
        logprobs: Logprobs,
        finish_reason: str,
        reward: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return a choice that is complete."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._logprobs(logprobs),
            "finish_reason": finish_reason,
            "reward": reward,
        }

    def _logprobs(self, logprobs: Logprobs) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        content = [
            {**_likely(drawn.chosen), "top_logprobs": [_likely(token) for token in drawn.top]}
            for drawn in logprobs
        ]
        return {"content": content, "refusal": None}


class CompletionShape:
    """Plain texts; chunks look like whole answers.

    Args:
        has_logprobs: Whether they were asked for.
    """

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, *, has_logprobs: bool) -> None:
        self._has_logprobs = has_logprobs
        self._offsets: dict[int, _Offset] = {}

    def opening(self, index: int) -> dict[str, Any] | None:  # noqa: ARG002 - the protocol's.
        """Return None: there is no role to name."""
        return None

    def piece(self, index: int, text: str, logprobs: Logprobs) -> dict[str, Any]:
        """Return what is new of a choice."""
        found = self._logprobs(index, logprobs)
        return {"index": index, "text": text, "logprobs": found, "finish_reason": None}

    def closing(
        self, index: int, finish_reason: str, reward: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the end of a choice, without text."""
        return {
            "index": index,
            "text": "",
            "logprobs": None,
            "finish_reason": finish_reason,
            "reward": reward,
        }

    def whole(
        self,
        index: int,
        text: str,
        logprobs: Logprobs,
        finish_reason: str,
        reward: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return a choice that is complete."""
        found = self._logprobs(index, logprobs)
        ending = {"finish_reason": finish_reason, "reward": reward}
        return {"index": index, "text": text, "logprobs": found, **ending}

    def _logprobs(self, index: int, logprobs: Logprobs) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        offset = self._offsets.setdefault(index, _Offset())
        return {
            "tokens": [drawn.chosen.token for drawn in logprobs],
            "token_logprobs": [_finite(drawn.chosen.logprob) for drawn in logprobs],
            "top_logprobs": [_by_token(drawn) for drawn in logprobs],
            "text_offset": [offset.advance(drawn.chosen.bytes) for drawn in logprobs],
        }


class _Offset:
    """Characters of a text so far; a token may end in the middle of one."""

    def __init__(self) -> None:
        self._decode: Callable[[bytes], str] = codecs.getincrementaldecoder("utf-8")(
            "replace"
        ).decode
        self._characters = 0

    def advance(self, token: bytes) -> int:
        """Add a token and return where it begins."""
        before = self._characters
        self._characters += len(self._decode(token))
        try:
            # What came before it and was no character after all is replaced only now.
            return self._characters - len(token.decode())
        except UnicodeDecodeError:
            return before


def _by_token(drawn: TokenLogprob) -> dict[str, float]:
    found: dict[str, float] = {}
    for token in (*drawn.top, drawn.chosen):
        # Parts of characters may be spelled alike; the likeliest comes first and stays.
        found.setdefault(token.token, _finite(token.logprob))
    return found


def _likely(token: TokenChoice) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": _finite(token.logprob),
        "bytes": list(token.bytes),
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
