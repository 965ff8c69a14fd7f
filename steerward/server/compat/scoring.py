"""From items to scores, for routes that answer in the shape of another protocol.

A request of thousands of texts is scored in parts of at most the server's `max_items` and
`max_candidates`, one after the other, each with the server's time-out. It has all its scores, of
one version of the weights, or an error: never fewer numbers than texts, and never another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request

from steerward.engine.exchange import ExchangeableModel
from steerward.protocol.conversations import without_halves
from steerward.protocol.errors import InvalidRequest, SteerwardError
from steerward.protocol.items import ScoreItem
from steerward.protocol.scoring import ScoreRequest
from steerward.server.compat.options import CompatOptions, ScoreKind
from steerward.server.compat.routing import ClientGone
from steerward.server.disconnect import unless_disconnected
from steerward.server.state import ServerState, state_of

_ITEM = re.compile(r"items(?:\[(\d+)\](?:\.candidates\[(\d+)\])?)?[^:\s]*")


@dataclass(frozen=True, slots=True)
class CompatScore:
    """What one candidate is worth."""

    value: float
    """The number that the URL asks for."""
    score: float | None
    """The checkpoint's own score, gated where it has a gate."""
    rewards: Mapping[str, float]
    tokens: int
    gates: Mapping[str, float]
    """As contributions: empty unless the reasons were asked for, or where there is no gate."""
    contributions: Mapping[str, float]
    """Of the objectives; they sum to `score`."""


@dataclass(frozen=True, slots=True)
class CompatScores:
    """The scores of a request, candidates in request order."""

    model: str
    """Under which the reward model is served."""
    kind: ScoreKind
    """Which score each `value` is."""
    objectives: Sequence[str]
    """Names, in the order of `rewards`, also where there are no candidates."""
    has_gate: bool
    candidates: Sequence[CompatScore]
    total_tokens: int
    headers: Mapping[str, str]
    """For the answer: which score it is, the weight version, timings."""

    @property
    def values(self) -> list[float]:
        """The number of each candidate."""
        return [candidate.value for candidate in self.candidates]

    @property
    def vectors(self) -> list[list[float]]:
        """The rewards of each candidate, and its number last, where callers read `[-1]`."""
        return [[*candidate.rewards.values(), candidate.value] for candidate in self.candidates]

    @property
    def labels(self) -> list[str]:
        """What the numbers of a vector are."""
        return [*self.objectives, self.kind]


def whole_characters(request: Request, texts: Iterable[str]) -> list[str]:
    """Return texts with every lone surrogate replaced by U+FFFD, and count them.

    To refuse them would end a training run for one odd sample.
    """
    whole, num_replaced = without_halves(texts)
    if num_replaced:
        _replaced_surrogates(state_of(request).metrics.registry).inc(num_replaced)
    return whole


async def score_items(
    request: Request,
    options: CompatOptions,
    items: Sequence[ScoreItem],
    *,
    place: str,
    named_model: str | None = None,
    explain: bool = False,
) -> CompatScores:
    """Return the scores of items, none if there are none.

    Args:
        request: Whose client may go away.
        options: Of its URL.
        items: To be scored, each with one candidate or more.
        place: What the items are called in the caller's body, for errors: `query` for `query[3]`.
        named_model: Model that the caller's body names; the URL wins. It may be the checkpoint
            that the server was started with, as trainers know no other name.
        explain: Whether gates and contributions are needed.

    Raises:
        InvalidRequest: If the model has several objectives and no gate, so no score of its own,
            and the URL has no direction and no weights.
        SteerwardError: Any error of the request or the engine; the place is the caller's.
        ClientGone: If the client went away.
    """
    state = state_of(request)
    engine = state.engine(_model_name(options, named_model, state))
    answers = await unless_disconnected(
        _score_parts(engine, options, items, place=place, explain=explain, state=state), request
    )
    if answers is None:
        raise ClientGone
    kind = options.score_kind
    candidates = [_candidate(row, kind) for answer in answers for row in _rows(answer)]
    return CompatScores(
        model=engine.name,
        kind=kind,
        objectives=engine.model.objectives.names,
        has_gate=engine.model.gate is not None,
        candidates=candidates,
        total_tokens=sum(answer["usage"]["total_tokens"] for answer in answers),
        headers={
            "x-steerward-score": kind,
            "x-weight-version": answers[0]["weight_version"] if answers else engine.weight_version,
            **_timings(answers),
        },
    )


def _model_name(options: CompatOptions, named: str | None, state: ServerState) -> str | None:
    if options.model is not None or named is None or named in state.engines:
        return options.model or named
    # The engines are those of the settings, in order.
    by_source = dict(zip(state.config.reward_model, state.engines, strict=False))
    if named in by_source:
        return by_source[named]
    try:
        state.engine(named)
    except SteerwardError as error:
        raise type(error)(
            f"{error.message}; to score with one of them whatever the body says, add ?model=NAME "
            "to the URL",
            param=error.param,
        ) from None
    return named


async def _score_parts(
    engine: ExchangeableModel,
    options: CompatOptions,
    items: Sequence[ScoreItem],
    *,
    place: str,
    explain: bool,
    state: ServerState,
) -> list[dict[str, Any]]:
    config = state.config
    answers: list[dict[str, Any]] = []
    first = 0
    async with state.pause.running(config.request_timeout_s) as left_s:
        # All parts by the same weights, whatever takes over between two of them.
        with engine.held() as served:
            for part in _parts(items, min(config.max_items, config.max_candidates)):
                body = ScoreRequest(
                    items=part,
                    direction=None if options.direction is None else dict(options.direction),
                    weights=None if options.weights is None else dict(options.weights),
                    explain=explain,
                    # Of a request that was not held, the server's limit is the only one.
                    timeout_s=None if left_s == config.request_timeout_s else min(left_s, 3600.0),
                )
                try:
                    scored = await served.score(body)
                except SteerwardError as error:
                    raise _in_words_of_caller(error, place=place, part=part, first=first) from error
                answers.append(scored.answer | {"stages": scored.stages})
                first += sum(item.num_candidates for item in part)
    return answers


def _parts(items: Sequence[ScoreItem], limit: int) -> Iterator[list[ScoreItem]]:
    """Yield items, in order, in parts of at most so many candidates."""
    part: list[ScoreItem] = []
    num_candidates = 0
    for item in items:
        if part and num_candidates + item.num_candidates > limit:
            yield part
            part, num_candidates = [], 0
        part.append(item)
        num_candidates += item.num_candidates
    if part:
        yield part


def _in_words_of_caller(
    error: SteerwardError, *, place: str, part: Sequence[ScoreItem], first: int
) -> SteerwardError:
    """Return an error of the engine with the place that the caller knows: that of a candidate."""
    match = _ITEM.fullmatch(error.param or "")
    if match is None:
        return error
    param = place
    if match[1] is not None:
        before = sum(item.num_candidates for item in part[: int(match[1])])
        param = f"{place}[{first + before + int(match[2] or 0)}]"
    message = error.message.removeprefix(f"{error.param}: ")
    return type(error)(f"{param}: {message}", param=param, retry_after_s=error.retry_after_s)


def _rows(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the candidates of an answer, each with its gates."""
    for item in answer["items"]:
        for candidate in item["candidates"]:
            yield {"gates": item.get("gates", {}), **candidate}


def _candidate(row: Mapping[str, Any], kind: ScoreKind) -> CompatScore:
    value = cast("float | None", row[kind])
    if value is None:
        raise InvalidRequest(
            "this model has several objectives and no gate, so it has no score of its own; say "
            "how they are weighed with ?weights= or ?direction= in the URL",
            param="weights",
        )
    return CompatScore(
        value=value,
        score=row["score"],
        rewards=row["rewards"],
        tokens=row["tokens"],
        gates=row["gates"],
        contributions=row.get("contributions", {}),
    )


def _timings(answers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the times of the stages, those of all parts together, in milliseconds."""
    totals: dict[str, float] = {}
    for answer in answers:
        for name, seconds in answer["stages"].items():
            totals[name] = totals.get(name, 0.0) + seconds
    return {f"x-{name}-ms": f"{seconds * 1e3:.2f}" for name, seconds in totals.items()}


_COUNTERS: WeakKeyDictionary[CollectorRegistry, Counter] = WeakKeyDictionary()


def _replaced_surrogates(registry: CollectorRegistry) -> Counter:
    if registry not in _COUNTERS:
        _COUNTERS[registry] = Counter(
            "steerward_replaced_surrogates",
            "Halves of characters in texts of other protocols' clients, replaced by U+FFFD.",
            registry=registry,
        )
    return _COUNTERS[registry]
