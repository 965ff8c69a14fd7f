"""The half of the clients that does no input or output: requests, answers, retries.

Both shells hold only the transport call and the sleep; every decision is here and pure.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from steerward.clients.arrays import ScoreArrays, check_packages
from steerward.protocol.arrays import MEDIA_TYPE
from steerward.protocol.errors import (
    ConnectionFailed,
    InvalidRequest,
    SteerwardError,
    error_from_body,
)
from steerward.protocol.items import Message, TextItem
from steerward.protocol.policies import PolicyCard
from steerward.protocol.scoring import ModelCard, ModelList, ScoreRequest, ScoreResponse
from steerward.protocol.tokenization import TokenizedItem, TokenizeRequest, TokenizeResponse
from steerward.protocol.validation import invalid_request

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT", bound=BaseModel)

Turn = Message | Mapping[str, str]
Prompt = str | Sequence[Turn]
Item = TextItem | TokenizedItem | Mapping[str, Any]

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 8.0
# A server that asks for more patience than this is not worth waiting for in a call.
_LONGEST_RETRY_AFTER_S = 120.0
# What the way there and back may add to the time that the server was allowed.
_WAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Call(Generic[AnswerT]):
    """One request to make, and what reads its answer."""

    method: str
    path: str
    read: Callable[[bytes], AnswerT]
    """Returns the answer of a body, or raises `ValueError` if it is none."""
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    server_timeout_s: float | None = None
    """Longest time that the call allows the server."""

    def attempt_timeout(self, timeout_s: float) -> httpx.Timeout:
        """Return the limits of one attempt; the server gets all the time that it was allowed.

        Args:
            timeout_s: Of the client.
        """
        if self.server_timeout_s is None:
            return httpx.Timeout(timeout_s)
        return httpx.Timeout(timeout_s, read=max(timeout_s, self.server_timeout_s + _WAY_S))


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again."""

    max_retries: int
    longest_retry_after_s: float = _LONGEST_RETRY_AFTER_S
    """Longest pause of the server's choice; more gives up."""

    def delay_s(self, error: SteerwardError, attempt: int) -> float | None:
        """Return how long to wait before the next attempt, or None to give up.

        Args:
            error: What the attempt ended with.
            attempt: Number of attempts so far, from 1.
        """
        if not error.is_retryable or attempt > self.max_retries:
            return None
        if error.retry_after_s is not None:
            within = error.retry_after_s <= self.longest_retry_after_s
            return error.retry_after_s if within else None
        backoff = min(_BACKOFF_S * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)
        # Jitter keeps many clients from coming back at the same moment.
        return backoff * random.uniform(0.75, 1.0)


def client_headers(api_key: str | None) -> dict[bytes, bytes]:
    """Return the headers of every request.

    Raises:
        InvalidRequest: If no header can carry the key.
    """
    headers = {b"user-agent": b"steerward-client"}
    if api_key is not None:
        if not api_key or not api_key.isprintable() or api_key != api_key.strip():
            raise InvalidRequest(
                "the API key is empty, or has line breaks, spaces around it or other characters "
                "that no header can carry; pass the key alone, or None for no key",
                param="api_key",
            )
        # As bytes: httpx would refuse what is not ASCII.
        headers[b"authorization"] = f"Bearer {api_key}".encode()
    return headers


def score_call(items: Sequence[Item], **options: Any) -> Call[ScoreResponse]:
    """Return the call that scores items.

    Raises:
        InvalidRequest: If the request breaks the schema, or weights or a direction are none;
            nothing is sent then.
    """
    return _score_call(ScoreResponse.model_validate_json, items, options)


def arrays_call(items: Sequence[Item], **options: Any) -> Call[ScoreArrays]:
    """Return the call that scores items and asks for the answer in arrays.

    Raises:
        ImportError: If a package that arrays need is missing.
        InvalidRequest: As for `score_call`.
    """
    check_packages()
    return _score_call(ScoreArrays.from_safetensors, items, options, accept=MEDIA_TYPE)


def _score_call(
    read: Callable[[bytes], AnswerT],
    items: Sequence[Item],
    options: Mapping[str, Any],
    **headers: str,
) -> Call[AnswerT]:
    request = _request(ScoreRequest, items, options)
    # JSON has no NaN and no infinity: they would arrive as null.
    request.checked_weights()
    request.unit_directions()
    call = _post("/v1/score", request, read)
    return replace(call, headers={**call.headers, **headers}, server_timeout_s=request.timeout_s)


def tokenize_call(items: Sequence[Item], *, model: str | None) -> Call[TokenizeResponse]:
    """Return the call that turns items into token ids.

    Raises:
        InvalidRequest: If the request breaks the schema; nothing is sent then.
    """
    request = _request(TokenizeRequest, items, {"model": model})
    return _post("/v1/tokenize", request, TokenizeResponse.model_validate_json)


def _request(schema: type[RequestT], items: Sequence[Item], options: Mapping[str, Any]) -> RequestT:
    try:
        return schema.model_validate(
            {
                "items": [_plain_item(item) for item in items],
                **{name: value for name, value in options.items() if value is not None},
            }
        )
    except ValidationError as error:
        raise invalid_request(error.errors()) from error


def _post(path: str, request: BaseModel, read: Callable[[bytes], AnswerT]) -> Call[AnswerT]:
    content = request.model_dump_json(exclude_none=True).encode()
    return Call("POST", path, read, content, {"content-type": "application/json"})


def prompt_item(prompt: Prompt, candidates: Sequence[str]) -> dict[str, Any]:
    """Return the item of one prompt and its candidates."""
    turns = prompt if isinstance(prompt, str) else [_plain(turn) for turn in prompt]
    return {"prompt": turns, "candidates": list(candidates)}


def _plain_item(item: Item) -> dict[str, Any]:
    return {"tokens": item.tokens} if isinstance(item, TokenizedItem) else _plain(item)


def _plain(value: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else dict(value)


def models_call() -> Call[list[ModelCard]]:
    """Return the call that lists the reward models."""
    return Call("GET", "/v1/models", lambda body: [c for c in _cards(body) if c.kind == "reward"])


def policies_call() -> Call[list[PolicyCard]]:
    """Return the call that lists the policies."""
    return Call("GET", "/v1/models", lambda body: [c for c in _cards(body) if c.kind == "policy"])


def _cards(body: bytes) -> list[ModelCard | PolicyCard]:
    return ModelList.model_validate_json(body).data


def model_call(name: str) -> Call[ModelCard]:
    """Return the call that describes one model.

    Raises:
        InvalidRequest: If the name is no Unicode text.
    """
    try:
        return Call("GET", f"/v1/models/{quote(name, safe='')}", ModelCard.model_validate_json)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the name of the model is no Unicode text: {error.reason}", param="model"
        ) from error


def read_answer(call: Call[AnswerT], response: httpx.Response) -> AnswerT:
    """Return the answer of a call.

    Raises:
        SteerwardError: The error that the server described, as its own class.
        ConnectionFailed: If the answer is not one of ours: cut off, or from something between.
    """
    request_id = response.headers.get("x-request-id")
    try:
        if response.is_success:
            return call.read(response.content)
        body: object = response.json()
    except ValueError as error:
        if response.is_success:
            failure: SteerwardError = ConnectionFailed(
                f"the answer of {response.url} is not a Steerward answer ({type(error).__name__})"
            )
            failure.request_id = request_id
            raise failure from error
        body = None
    failure = error_from_body(
        response.status_code, body, retry_after_s=_retry_after_s(response.headers)
    )
    failure.request_id = request_id
    raise failure


def connection_error(base_url: str, error: httpx.HTTPError) -> ConnectionFailed:
    """Return the error of a call that got no answer."""
    return ConnectionFailed(
        f"no answer from {base_url} ({type(error).__name__}: {error}); is the server running, "
        "and is base_url right?"
    )


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Return the server's delay, which HTTP spells in seconds or as a date."""
    given = headers.get("retry-after", "")
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    until = _seconds_since_1970(given)
    if until is None:
        return None
    # By the sender's clock, where it tells the time: ours may differ.
    now = _seconds_since_1970(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _seconds_since_1970(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
