"""What the adapters of all pipelines share: samples in, a score and named rewards each out.

Samples of one prompt go as one item, so that the server computes the prompt once. A score is never
made up: what failed raises, or is None where the caller asked for that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

from steerward.clients._background import background
from steerward.clients._batch import BatchClient, Connection
from steerward.clients._samples import Sample, Scored, grouped, in_order
from steerward.clients._sync import Client
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import (
    InputTooLong,
    InvalidDirection,
    InvalidRequest,
    NonFiniteScore,
    NotReady,
    SteerwardError,
    brief,
)

OnError = Literal["raise", "none"]


class Settings(TypedDict, total=False):
    """What every adapter takes by name beside the URL; `scorer` says what each means."""

    model: str | None
    weights: Mapping[str, float] | None
    direction: Mapping[str, float] | None
    api_key: str | None
    timeout_s: float
    deadline_s: float
    on_error: OnError


# Scores of two versions of the weights cannot be compared: such a batch is scored once more.
_MOST_PASSES = 2
_PLACE = re.compile(r"items\[(\d+)\](?:\.candidates\[(\d+)\])?")


@dataclass(frozen=True, slots=True)
class Scorer:
    """Where and how samples are scored. Holds settings only, so that it can be pickled."""

    connection: Connection
    model: str | None = None
    weights: Mapping[str, float] | None = None
    direction: Mapping[str, float] | None = None
    on_error: OnError = "raise"

    @property
    def score_kind(self) -> str:
        """Which score the settings ask for, by its name on the wire."""
        if self.direction is not None:
            return "direction_score"
        return "score" if self.weights is None else "weighted_score"

    def score(self, samples: Sequence[Sample], *, explain: bool = False) -> list[Scored | None]:
        """Score samples; blocks. None stands for one that failed, where that is allowed.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return self.start(samples, explain=explain).result()

    async def score_async(
        self, samples: Sequence[Sample], *, explain: bool = False
    ) -> list[Scored | None]:
        """Score samples from any event loop, also one that ends with this call.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await asyncio.wrap_future(self.start(samples, explain=explain))

    def start(
        self, samples: Sequence[Sample], *, explain: bool = False
    ) -> concurrent.futures.Future[list[Scored | None]]:
        """Start to score samples; the future can be shared between threads and loops."""
        carrier = background()
        return carrier.start(self._run(carrier.client(self.connection), samples, explain=explain))

    def objectives(self) -> list[str]:
        """Return the names of the model's objectives, in head order.

        Raises:
            InvalidRequest: If the server has several reward models and none is named.
            SteerwardError: What the server or the connection failed with.
        """
        connection = self.connection
        with Client(connection.url, api_key=connection.api_key) as client:
            cards = [client.model(self.model)] if self.model is not None else client.models()
        if len(cards) != 1:
            names = ", ".join(brief(card.id) for card in cards) or "none"
            raise InvalidRequest(
                f"the server has {len(cards)} reward models ({names}); pass model=, or the names "
                "of the objectives",
                param="model",
            )
        return [objective.name for objective in cards[0].objectives]

    async def _run(
        self, client: BatchClient, samples: Sequence[Sample], *, explain: bool
    ) -> list[Scored | None]:
        options = {
            "model": self.model,
            "weights": self.weights,
            "direction": self.direction,
            "explain": explain,
        }
        ends_at = client.deadline()
        for _ in range(_MOST_PASSES):
            # Each with a nonce of its own: the server answers a known one as it did before.
            batch = _Batch(
                client,
                uuid.uuid4().hex,
                options,
                allows_none=self.on_error == "none",
                ends_at=ends_at,
            )
            scored = await batch.score(samples)
            if len(batch.versions) <= 1:
                return scored
        raise NotReady(
            f"a batch of {len(samples)} samples went in several requests, and the server's weights "
            f"changed between them, {_MOST_PASSES} times in a row; exchange weights between "
            "batches, or send smaller ones"
        )


@dataclass(frozen=True, slots=True)
class _Batch:
    """One call of a trainer, which is one request unless something in it fails."""

    client: BatchClient
    nonce: str
    options: Mapping[str, Any]
    allows_none: bool
    ends_at: float
    """Of all requests, however many there are."""
    versions: set[str] = field(default_factory=set[str])
    """Of the weights that gave the answers so far."""

    async def score(self, samples: Sequence[Sample]) -> list[Scored | None]:
        if not samples:
            return []
        items, places = grouped(samples)
        try:
            answer = await self.client.score_batch(
                items, nonce=self.nonce, ends_at=self.ends_at, **self.options
            )
        except SteerwardError as error:
            failed = self._failed(error, places)
            if failed is None:
                raise
            return await self._score_others(samples, failed)
        self.versions.add(answer.weight_version)
        return in_order(answer, places, options=self.options)

    def _failed(self, error: SteerwardError, places: Sequence[Sequence[int]]) -> set[int] | None:
        """Return which samples an error is about, or None if it is not about samples."""
        if isinstance(error, InputTooLong) and error.param == "items":
            # More than a request may hold: two requests may do what one may not.
            return set() if sum(map(len, places)) > 1 else None
        found = _PLACE.match(error.param or "")
        is_of_samples = isinstance(error, InvalidRequest | InputTooLong | NonFiniteScore)
        if not self.allows_none or found is None or not is_of_samples:
            return None
        of_item = places[int(found[1])]
        return {of_item[int(found[2])]} if found[2] is not None else set(of_item)

    async def _score_others(
        self, samples: Sequence[Sample], failed: set[int]
    ) -> list[Scored | None]:
        # In halves: where many samples fail, one request for each failure would be far more work.
        left = [i for i in range(len(samples)) if i not in failed]
        halves = [left[: (len(left) + 1) // 2], left[(len(left) + 1) // 2 :]]
        answers = await asyncio.gather(*(self.score([samples[i] for i in half]) for half in halves))
        scored: list[Scored | None] = [None] * len(samples)
        for half, answer in zip(halves, answers, strict=True):
            for i, found in zip(half, answer, strict=True):
                scored[i] = found
        return scored


def scorer(
    url: str = DEFAULT_BASE_URL,
    *,
    model: str | None = None,
    weights: Mapping[str, float] | None = None,
    direction: Mapping[str, float] | None = None,
    api_key: str | None = None,
    timeout_s: float = 120.0,
    deadline_s: float = 300.0,
    on_error: OnError = "raise",
) -> Scorer:
    """Return what scores samples, from the settings that every adapter takes.

    Args:
        url: Where the server is.
        model: Name of the reward model; may be left out where the server has one.
        weights: Non-negative numbers by objective in place of the gates; they give the score then.
        direction: Preference direction by objective; gives the score then.
        api_key: Sent as a bearer key, if the server wants one.
        timeout_s: Longest wait for an answer, an attempt.
        deadline_s: Longest time that a batch may take, with all retries: overload, restarts and
            lost connections are waited out until then.
        on_error: Whether a sample that cannot be scored raises, or has the score None. A server
            that cannot be reached raises either way.

    Raises:
        InvalidDirection: If both weights and a direction are given.
        InvalidRequest: If `on_error` is neither of the two.
    """
    if weights is not None and direction is not None:
        raise InvalidDirection(
            "weights and a direction are both given, and each gives a score; pass one of them",
            param="direction",
        )
    if on_error not in ("raise", "none"):
        raise InvalidRequest(
            f'on_error is {brief(str(on_error))!r}; give "raise" or "none"', param="on_error"
        )
    return Scorer(
        Connection(url, api_key, timeout_s=timeout_s, deadline_s=deadline_s),
        model=model,
        weights=_plain_numbers(weights),
        direction=_plain_numbers(direction),
        on_error=on_error,
    )


def raising_scorer(pipeline: str, url: str, **settings: Unpack[Settings]) -> Scorer:
    """Return a scorer for a pipeline that has no way to leave out a sample.

    Args:
        pipeline: Its name, for the error.
        url: Where the server is.
        settings: As for `scorer`.

    Raises:
        InvalidRequest: If `on_error` is not "raise".
    """
    if settings.get("on_error", "raise") != "raise":
        raise InvalidRequest(
            f'on_error is set, but {pipeline} takes no None for a score; leave it at "raise"',
            param="on_error",
        )
    return scorer(url, **settings)


def _plain_numbers(values: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return a plain mapping: configuration libraries have types of their own."""
    return None if values is None else {str(name): float(values[name]) for name in values}
