"""Samples and their scores: from samples to the items of a request, and back from its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerward.clients._conversation import PlainPrompt
from steerward.protocol.errors import EngineFailure, InvalidRequest
from steerward.protocol.items import ScoreItem
from steerward.protocol.scoring import CandidateScore, ScoreResponse


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to be scored."""

    prompt: PlainPrompt
    answer: str


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one answer."""

    gated: float | None
    """By weights or by direction where those are set; None if the model has no single score."""
    rewards: Mapping[str, float]
    """Raw rewards by objective, in head order."""
    gates: Mapping[str, float] | None = None
    contributions: Mapping[str, float] | None = None
    """Of the objectives to the score, where the call explains and the gate gives the score."""

    @property
    def score(self) -> float:
        """The one number that a trainer wants.

        Raises:
            InvalidRequest: If the model has several objectives and no gate.
        """
        if self.gated is None:
            raise InvalidRequest(
                f"the reward model has {len(self.rewards)} objectives and no gate, so it has no "
                "single score; pass weights or a direction by objective, or use the objectives",
                param="weights",
            )
        return self.gated


def sample_of(item: ScoreItem) -> Sample:
    """Return the sample of a conversation that was read, the only candidate being its answer."""
    turns = [{"role": turn.role, "content": turn.content} for turn in item.context]
    return Sample(turns, item.answers[0])


def grouped(samples: Sequence[Sample]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Return one item a prompt, and the samples that each holds, in the order of its candidates."""
    places: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        places.setdefault(json.dumps(sample.prompt), []).append(i)
    items = [
        {"prompt": samples[of_item[0]].prompt, "candidates": [samples[i].answer for i in of_item]}
        for of_item in places.values()
    ]
    return items, list(places.values())


def checked(scored: Iterable[Scored | None]) -> list[Scored]:
    """Return scores of which none failed, for adapters that never ask for None.

    Raises:
        EngineFailure: If one is None all the same; leaving it out would shift the others.
    """
    given = list(scored)
    there = [found for found in given if found is not None]
    if len(there) != len(given):
        raise EngineFailure(
            f"{len(given) - len(there)} of {len(given)} samples have no score, and none may be "
            'missing here; leave on_error at "raise" to see what each failed with'
        )
    return there


def in_order(
    answer: ScoreResponse, places: Sequence[Sequence[int]], *, options: Mapping[str, Any]
) -> list[Scored | None]:
    """Return the scores of an answer in the order of the samples that were grouped.

    Args:
        answer: To the items of `grouped`.
        places: Of `grouped`.
        options: Of the request; they decide which score is meant.
    """
    scored: list[Scored | None] = [None] * sum(map(len, places))
    is_own_score = options["weights"] is None and options["direction"] is None
    for item, of_item in zip(answer.items, places, strict=True):
        for candidate, i in zip(item.candidates, of_item, strict=True):
            scored[i] = Scored(
                gated=_gated(candidate, options),
                rewards=candidate.rewards,
                gates=item.gates or candidate.gates,
                contributions=candidate.contributions if is_own_score else None,
            )
    return scored


def _gated(candidate: CandidateScore, options: Mapping[str, Any]) -> float | None:
    if options["weights"] is not None:
        return candidate.weighted_score
    if options["direction"] is not None:
        return candidate.direction_score
    return candidate.score
