"""From the bytes of a streamed answer to pieces: server-sent events, chunks, log-probabilities.

Pure, and sceptical: what is not as OpenAI writes it ends in an `EngineFailure` that says where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, cast

from steerward.policy.generation import FinishReason, Piece, TokenChoice, TokenLogprob
from steerward.policy.remote_wire import error_of_body
from steerward.protocol.errors import EngineFailure, brief

# No event of a few tokens is as long; a stream without line ends must not fill the memory.
_MAX_EVENT_BYTES = 16 * 1024 * 1024
_END = "[DONE]"
_FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "length")


class EventParser:
    """Splits bytes into the data of server-sent events.

    Only line feeds end lines, as in JSON: `str.splitlines` would cut texts at characters such as
    U+2028.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._num_bytes = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the data of each event that is complete now.

        Raises:
            EngineFailure: If an event is not UTF-8, or grows without end.
        """
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._rest += line
            event = self._line(bytes(self._rest).removesuffix(b"\r"))
            self._rest.clear()
            if event is not None:
                yield event
        self._rest += rest
        if len(self._rest) + self._num_bytes > _MAX_EVENT_BYTES:
            _fail(f"an event has more than {_MAX_EVENT_BYTES:,} bytes")

    def _line(self, line: bytes) -> str | None:
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._num_bytes += len(value)
            return None
        if not self._data:
            return None
        event, self._data, self._num_bytes = b"\n".join(self._data), [], 0
        try:
            return event.decode()
        except UnicodeDecodeError:
            _fail("an event is not UTF-8")


class ChunkReader:
    """Turns the events of one stream into pieces.

    How many tokens a chunk holds is told by its log-probabilities, if they were asked for, and
    by the usage at the end. What the usage counts and no piece had yet is on the last one.

    Args:
        samples: Index of the sample for each choice of the stream.
        server: Its address, for errors.
    """

    def __init__(self, samples: Sequence[int], *, server: str) -> None:
        self.prompt_tokens = 0
        self.system_fingerprint: str | None = None
        self._samples = samples
        self._server = server
        self._finished: set[int] = set()
        self._is_done = False
        self._last: Piece | None = None
        self._num_counted = 0
        self._num_seen = 0
        self._completion_tokens: int | None = None

    def read(self, event: str) -> list[Piece]:
        """Return the pieces of an event.

        Raises:
            SteerwardError: The error that the other server sent in place of a chunk.
            EngineFailure: If the event is none that OpenAI's server would send.
        """
        if self._is_done:
            return []
        if event.strip() == _END:
            self._is_done = True
            return []
        chunk = _object(_parse(event), "an event")
        if chunk.get("error") is not None:
            raise error_of_body(500, chunk, server=self._server)
        self._read_usage(chunk.get("usage"))
        if isinstance(fingerprint := chunk.get("system_fingerprint"), str):
            self.system_fingerprint = fingerprint
        pieces = (self._piece(choice) for choice in _list(chunk.get("choices"), "choices"))
        return [piece for piece in pieces if piece is not None]

    def end(self) -> Piece | None:
        """Return the piece that was held back for the usage, when the stream has ended.

        Raises:
            EngineFailure: If a completion is not finished.
        """
        if missing := len(self._samples) - len(self._finished):
            _fail(f"the stream ended with {missing} of {len(self._samples)} completions unfinished")
        last = self._last
        if last is None:
            return None
        # Without a usage each piece of text counts as a token, which is what most servers send.
        total = self._num_seen if self._completion_tokens is None else self._completion_tokens
        left = max(0, total - self._num_counted - last.num_tokens)
        self._last = None
        return Piece(
            last.index, last.text, last.num_tokens + left, last.logprobs, last.finish_reason
        )

    def _piece(self, value: object) -> Piece | None:
        choice = _object(value, "a choice")
        position = choice.get("index")
        if type(position) is not int or not 0 <= position < len(self._samples):
            _fail(f"a choice has the index {_told(position)} of {len(self._samples)} completions")
        if position in self._finished:
            # Some servers repeat the end, or send an empty delta behind it.
            return None
        text = _text_of(choice)
        logprobs = _logprobs_of(choice.get("logprobs"))
        finish_reason = _finish_reason(choice.get("finish_reason"))
        if not text and not logprobs and finish_reason is None:
            return None
        piece = Piece(self._samples[position], text, len(logprobs), logprobs, finish_reason)
        self._num_seen += max(len(logprobs), 1 if text else 0)
        if finish_reason is not None:
            self._finished.add(position)
            if len(self._finished) == len(self._samples):
                self._last = piece
                return None
        self._num_counted += piece.num_tokens
        return piece

    def _read_usage(self, value: object) -> None:
        if value is None:
            return
        usage = _object(value, "usage")
        self.prompt_tokens = _count(usage, "prompt_tokens")
        self._completion_tokens = _count(usage, "completion_tokens")


def _text_of(choice: dict[str, Any]) -> str:
    """Return the new text of a choice, of the chat endpoint or of the older one."""
    if (delta := choice.get("delta")) is not None:
        text = _object(delta, "delta").get("content")
    else:
        text = choice.get("text")
    if text is None:
        return ""
    if not isinstance(text, str):
        _fail(f"the text of a choice is {_told(text)}")
    return text


def _finish_reason(value: object) -> FinishReason | None:
    if value is None:
        return None
    for known in _FINISH_REASONS:
        if value == known:
            return known
    _fail(f"a completion ended with finish_reason {brief(repr(value))}; known are stop and length")


def _logprobs_of(value: object) -> tuple[TokenLogprob, ...]:
    if value is None:
        return ()
    logprobs = _object(value, "logprobs")
    if "tokens" in logprobs:
        return _older_logprobs(logprobs)
    tokens = _list(logprobs.get("content") or [], "logprobs.content")
    return tuple(
        TokenLogprob(
            _choice_of(token), tuple(map(_choice_of, _list(token.get("top_logprobs") or [], "top")))
        )
        for token in (_object(token, "a token") for token in tokens)
    )


def _choice_of(value: object) -> TokenChoice:
    token = _object(value, "a token")
    raw = token.get("bytes")
    spelled = _token_text(token.get("token"))
    try:
        given = spelled.encode(errors="replace") if raw is None else bytes(_list(raw, "bytes"))
    except (TypeError, ValueError):
        _fail("the bytes of a token are no bytes")
    return TokenChoice(spelled, _logprob(token.get("logprob")), given)


def _older_logprobs(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """Return log-probabilities as ``/v1/completions`` writes them: parallel lists."""
    tokens = _list(logprobs["tokens"], "logprobs.tokens")
    values = _list(logprobs.get("token_logprobs"), "logprobs.token_logprobs")
    tops = _list(logprobs.get("top_logprobs") or [None] * len(tokens), "logprobs.top_logprobs")
    if not len(tokens) == len(values) == len(tops):
        _fail(f"{len(tokens)} tokens have {len(values)} log-probabilities and {len(tops)} tops")
    return tuple(
        TokenLogprob(
            _plain_choice(token, value),
            tuple(_plain_choice(*other) for other in _object(top or {}, "top_logprobs").items()),
        )
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _plain_choice(token: object, logprob: object) -> TokenChoice:
    text = _token_text(token)
    return TokenChoice(text, _logprob(logprob), text.encode(errors="replace"))


def _token_text(value: object) -> str:
    if not isinstance(value, str):
        _fail(f"a token is {_told(value)}")
    return value


def _logprob(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _fail(f"the log-probability of a token is {_told(value)}")
    return float(value)


def _count(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    if type(count) is not int or count < 0:
        _fail(f"usage.{name} is {_told(count)}")
    return count


def _parse(event: str) -> object:
    try:
        return json.loads(event)
    except ValueError:
        _fail("an event is not JSON")


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(f"{what} is {_told(value)} and no object")
    return cast("dict[str, Any]", value)


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        _fail(f"{what} is {_told(value)} and no list")
    return cast("list[Any]", value)


def _told(value: object) -> str:
    """Return a value if it is short and plain; texts may hold a completion."""
    return (
        brief(repr(value))
        if value is None or isinstance(value, int | float)
        else (f"of type {type(value).__name__}")
    )


def _fail(what: str) -> NoReturn:
    raise EngineFailure(f"the policy's server does not answer as OpenAI's: {what}")
