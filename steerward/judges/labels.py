"""Probabilities of label words as a model's answer, out of an OpenAI-compatible server."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from steerward.protocol.errors import ConnectionFailed, InvalidRequest, brief, error_from_body

if TYPE_CHECKING:
    import httpx

Conversation = Sequence[Mapping[str, str]]
"""Messages with role and content, which end with a user turn."""

_MOST_TOP_LOGPROBS = 20
"""OpenAI's limit, and ours."""
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 8.0


class LabelProbabilities(Protocol):
    """How probable labels are as a model's answer to conversations."""

    def __call__(
        self, conversations: Sequence[Conversation], labels: tuple[str, ...]
    ) -> list[tuple[float, ...] | None]:
        """Return the probability of each label, for each conversation.

        They need not sum to 1: the model may answer other things. None stands for a conversation
        of which they are not known; nothing is guessed.

        Args:
            conversations: That end with a question.
            labels: Possible answers.
        """
        ...


class ServerLabels:
    """Asks a server for the likeliest first tokens of an answer, and finds the labels in them.

    A label must be one token, with or without white space around it, of which all spellings are
    added up. A conversation with a label that is not among the likeliest tokens, or whose request
    fails in the end, is not known. What no retry mends, such as a wrong key or model, is raised.

    Args:
        url: Of the server, with or without /v1 at its end.
        model: Its name there.
        api_key: Sent as a bearer key.
        top_logprobs: Likeliest tokens to ask for.
        max_retries: Further attempts after an answer of overload or none at all.
        timeout_s: Of an attempt.
        num_parallel: Requests at once.
        extra_body: Further fields of the request, such as `{"reward": False}` for Steerward's
            servers, or what turns off a model's thinking.

    Raises:
        InvalidRequest: If a setting is out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        top_logprobs: int = _MOST_TOP_LOGPROBS,
        max_retries: int = 3,
        timeout_s: float = 60.0,
        num_parallel: int = 8,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not 2 <= top_logprobs <= _MOST_TOP_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs is {top_logprobs}; it must be 2 to {_MOST_TOP_LOGPROBS}, to hold "
                "two labels",
                param="top_logprobs",
            )
        if max_retries < 0 or timeout_s <= 0 or num_parallel < 1:
            raise InvalidRequest(
                f"max_retries is {max_retries}, timeout_s {timeout_s}, num_parallel "
                f"{num_parallel}; give at least 0, more than 0, and at least 1"
            )
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._body = {
            "model": model,
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": top_logprobs,
            **(extra_body or {}),
        }
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._num_parallel = num_parallel

    def __call__(
        self, conversations: Sequence[Conversation], labels: tuple[str, ...]
    ) -> list[tuple[float, ...] | None]:
        """Return the probability of each label, for each conversation; None where not known.

        Raises:
            SteerwardError: If the server refuses the requests for a reason that no retry mends.
        """
        if not conversations:
            return []
        import httpx

        num_parallel = min(self._num_parallel, len(conversations))
        with (
            httpx.Client(headers=self._headers, timeout=self._timeout_s) as client,
            ThreadPoolExecutor(num_parallel) as pool,
        ):
            bodies = pool.map(lambda turns: self._ask(client, turns), conversations)
            return [None if body is None else found_labels(body, labels) for body in bodies]

    def _ask(self, client: httpx.Client, conversation: Conversation) -> Any:
        """Return the answer's body; None if there is none after all attempts."""
        import httpx

        body = {**self._body, "messages": [dict(turn) for turn in conversation]}
        for attempt in range(self._max_retries + 1):
            asked_s = 0.0
            try:
                response = client.post(self._url, json=body)
            except httpx.TransportError:
                pass
            else:
                if response.is_success:
                    return _json(response) or {}
                error = error_from_body(response.status_code, _json(response))
                if response.status_code < 500 and not error.is_retryable:
                    raise error
                asked_s = _seconds(response.headers.get("retry-after"))
            if attempt < self._max_retries:
                delay_s = max(_FIRST_RETRY_S * 2.0**attempt, asked_s)
                time.sleep(min(delay_s, _LONGEST_RETRY_S))
        return None


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def found_labels(body: Any, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the probability of each label out of a chat completion; None if one is missing.

    White space around tokens and labels is not compared.

    Raises:
        ConnectionFailed: If the answer has no log-probabilities, as of a server that knows none.
    """
    try:
        top = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), float(entry["logprob"])) for entry in top]
    except (TypeError, KeyError, IndexError, ValueError):
        raise ConnectionFailed(
            "the server's answer has no top_logprobs, which decide between the labels; use a "
            "server that gives them with chat completions"
        ) from None
    by_label: defaultdict[str, float] = defaultdict(float)
    for token, logprob in found:
        by_label[token.strip()] += math.exp(min(logprob, 0.0))
    words = [label.strip() for label in labels]
    if not all(word in by_label for word in words):
        return None
    return tuple(by_label[word] for word in words)


def _seconds(given: str | None) -> float:
    """Return the seconds of a header; none where it is a date or missing."""
    try:
        seconds = float(given or "")
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def check_labels(labels: tuple[str, ...]) -> None:
    """Refuse labels that cannot be told apart.

    Raises:
        InvalidRequest: If one is blank, or two are the same.
    """
    words = {label.strip() for label in labels}
    if "" in words or len(words) < len(labels):
        shown = ", ".join(brief(repr(label)) for label in labels)
        raise InvalidRequest(f"the labels {shown} must be words that differ", param="labels")
