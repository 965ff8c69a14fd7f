"""Ratings for distilabel: what a step of a few lines calls.

    rate = rating_function("http://127.0.0.1:8000")

    @step(inputs=["instruction", "generations"], outputs=["ratings", "rewards"])
    def SteerwardRatings(inputs: StepInput) -> StepOutput:
        yield rate(inputs)

`FormatTextGenerationDPO` takes `generations` and `ratings` as they are then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.clients._rewards import Settings, scorer
from steerward.clients._samples import Sample, Scored
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest

Rate = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


def rating_function(url: str = DEFAULT_BASE_URL, **settings: Unpack[Settings]) -> Rate:
    """Return a function that adds scores to rows, in one request a batch.

    A row with `generations` gets `ratings` and `rewards`, a list each; one with `response`, or
    with a `conversation` that ends with the answer, gets `score` and `rewards`.

    Args:
        url: Where the server is.
        settings: As for `scorer`; with `on_error="none"` a rating can be None.

    Raises:
        InvalidRequest: If `on_error` is neither of the two.
    """
    scoring = scorer(url, **settings)

    def rate(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        of_rows = [_samples(row, place=i) for i, row in enumerate(rows)]
        scored = iter(scoring.score([sample for samples in of_rows for sample in samples]))
        return [
            _rated(row, [next(scored) for _ in samples])
            for row, samples in zip(rows, of_rows, strict=True)
        ]

    return rate


def _samples(row: Mapping[str, Any], *, place: int) -> list[Sample]:
    if row.get("conversation") is not None:
        turns = list(row["conversation"])
        prompt = plain_prompt(turns[:-1], param=f"rows[{place}].conversation")
        return [Sample(prompt, plain_answer(turns[-1:], param=f"rows[{place}].conversation"))]
    if row.get("instruction") is None:
        raise InvalidRequest(
            f"rows[{place}] has neither instruction nor conversation; map one of your columns to "
            "it with input_mappings",
            param=f"rows[{place}]",
        )
    prompt = plain_prompt(row["instruction"], param=f"rows[{place}].instruction")
    answers = row["generations"] if "generations" in row else [row["response"]]
    return [Sample(prompt, answer) for answer in answers]


def _rated(row: Mapping[str, Any], scored: Sequence[Scored | None]) -> dict[str, Any]:
    scores = [None if found is None else found.score for found in scored]
    rewards = [None if found is None else dict(found.rewards) for found in scored]
    if "generations" in row:
        return {**row, "ratings": scores, "rewards": rewards}
    return {**row, "score": scores[0], "rewards": rewards[0]}
