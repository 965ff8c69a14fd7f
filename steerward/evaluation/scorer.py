"""Who gives the scores: a reward model in this process, or one behind a URL."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from steerward.clients import AsyncClient
from steerward.config import EngineConfig
from steerward.evaluation.rows import BenchmarkRow
from steerward.protocol.errors import InvalidRequest, NotFound, SteerwardError
from steerward.protocol.scoring import ModelCard, ScoreRequest, ScoreResponse
from steerward.protocol.validation import invalid_request

# A busy server says when to come back: nobody waits here but a progress bar.
_MAX_RETRIES = 10
_TIMEOUT_S = 600.0

Measured = Literal["score", "weighted_score", "direction_score"]


@dataclass(frozen=True, slots=True)
class Steering:
    """Which number of a candidate is evaluated: the model's own score, or a steered one."""

    weights: Mapping[str, float] | None = None
    direction: Mapping[str, float] | None = None

    @property
    def measured(self) -> Measured:
        """Name of the number in an answer."""
        if self.direction is not None:
            return "direction_score"
        return "score" if self.weights is None else "weighted_score"

    def check(self, card: ModelCard) -> None:
        """Refuse a model that has no such number.

        Raises:
            InvalidRequest: If it has several objectives, no gate, and nothing weighs them.
        """
        if self.measured == "score" and not card.has_gate and len(card.objectives) > 1:
            raise InvalidRequest(
                f"{card.id} has {len(card.objectives)} objectives and no gate, so it has no score "
                "of its own; give --weights or --direction"
            )

    def values(self, response: ScoreResponse) -> tuple[float, ...]:
        """Return the numbers of the only item of an answer, candidates in order."""
        (item,) = response.items
        found = [getattr(candidate, self.measured) for candidate in item.candidates]
        if None in found:
            raise SteerwardError(f"the answer of {response.model} has no {self.measured}")
        return tuple(found)


class Scorer(Protocol):
    """A reward model that is ready."""

    @property
    def card(self) -> ModelCard:
        """What it is."""
        ...

    @property
    def address(self) -> str | None:
        """URL of its server; None in this process."""
        ...

    async def score(self, row: BenchmarkRow, *, steering: Steering) -> ScoreResponse:
        """Return the scores of a row's candidates, in one item.

        Raises:
            SteerwardError: Why there are none.
        """
        ...


class _LocalScorer:
    address = None

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.card: ModelCard = engine.card()

    async def score(self, row: BenchmarkRow, *, steering: Steering) -> ScoreResponse:
        try:
            request = ScoreRequest.model_validate(
                {
                    "items": [_item(row)],
                    "weights": steering.weights,
                    "direction": steering.direction,
                }
            )
        except ValidationError as error:
            raise invalid_request(error.errors()) from error
        return ScoreResponse.model_validate((await self._engine.score(request)).answer)


class _ServerScorer:
    def __init__(self, client: AsyncClient, *, card: ModelCard, address: str) -> None:
        self._client = client
        self.card = card
        self.address = address

    async def score(self, row: BenchmarkRow, *, steering: Steering) -> ScoreResponse:
        return await self._client.score_items(
            [_item(row)],
            model=self.card.id,
            weights=steering.weights,
            direction=steering.direction,
        )


@asynccontextmanager
async def local_scorer(reward_model: str, *, config: EngineConfig) -> AsyncIterator[Scorer]:
    """Load a checkpoint and give its scorer.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If it cannot be loaded without guessing.
    """
    from steerward.engine.loading import load_engine
    from steerward.metrics import Metrics

    # Rows wait their turn to be scored, so the engine has no reason to refuse one.
    unlimited = config.model_copy(update={"max_queued_tokens": sys.maxsize})
    engine = load_engine(reward_model, name=reward_model, config=unlimited, metrics=Metrics())
    engine.start()
    try:
        await engine.wait_until_ready()
        yield _LocalScorer(engine)
    finally:
        engine.close()


@asynccontextmanager
async def server_scorer(
    url: str, *, api_key: str | None = None, model: str | None = None
) -> AsyncIterator[Scorer]:
    """Ask a server for its reward model and give the scorer.

    Args:
        url: Of the server, without ``/v1``.
        api_key: That it wants.
        model: Name of the reward model; may be left out where there is one.

    Raises:
        SteerwardError: If it has no such model, or does not answer.
    """
    client = AsyncClient(url, api_key=api_key, timeout_s=_TIMEOUT_S, max_retries=_MAX_RETRIES)
    async with client:
        card = _chosen(await client.models(), model, url=url)
        yield _ServerScorer(client, card=card, address=url)


def _chosen(cards: Sequence[ModelCard], model: str | None, *, url: str) -> ModelCard:
    names = [card.id for card in cards]
    found = [card for card in cards if model in (None, card.id)]
    if len(found) != 1:
        wanted = "one reward model" if model is None else f"a reward model {model!r}"
        raise NotFound(
            f"{url} is to have {wanted} and has {', '.join(names) or 'none'}; name one with --model"
        )
    return found[0]


def _item(row: BenchmarkRow) -> dict[str, Any]:
    prompt = row.prompt if isinstance(row.prompt, str) else [dict(turn) for turn in row.prompt]
    return {"prompt": prompt, "candidates": row.candidates}
