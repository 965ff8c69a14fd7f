"""``POST /predict``: text-embeddings-inference's classifier, one entry for each number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from fastapi import Request
from pydantic import BeforeValidator, WithJsonSchema
from starlette.responses import Response

from steerward.protocol.items import ScoreItem
from steerward.protocol.transcripts import read_conversation
from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.activation import sigmoids
from steerward.server.compat.options import CompatOptions, read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items, whole_characters
from steerward.server.compat.turns import compared
from steerward.server.responses import json_response

router = compat_router()

_TEXT = {"type": "string"}
_SEQUENCE = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 2}


def _is_sequence(value: object) -> bool:
    """Return whether a value is a text in a list, or a prompt and its answer."""
    if not isinstance(value, list):
        return False
    texts = cast("list[object]", value)
    return len(texts) in (1, 2) and all(isinstance(text, str) for text in texts)


def _check_inputs(value: object) -> object:
    if isinstance(value, str) or _is_sequence(value):
        return value
    if isinstance(value, list) and all(_is_sequence(one) for one in cast("list[object]", value)):
        return cast("list[list[str]]", value)
    raise ValueError(
        "this is neither a text, nor a pair [prompt, answer], nor a batch of them as lists of one "
        "or two texts"
    )


Inputs = Annotated[
    str | list[str] | list[list[str]],
    BeforeValidator(_check_inputs),
    WithJsonSchema({"anyOf": [_TEXT, _SEQUENCE, {"type": "array", "items": _SEQUENCE}]}),
]


class PredictRequest(RequestModel):
    """Body of ``POST /predict``."""

    inputs: Inputs
    """A text in which prompt and answer are joined, in the markup of a chat template; or a pair
    [prompt, answer]; or a batch of them, `[[text], [prompt, answer], ...]`."""
    raw_scores: bool | None = None
    """false puts each number through a sigmoid; without it, and with true, they are raw."""
    truncate: bool | None = None
    """Without effect: nothing is ever cut, and what is too long is refused."""
    truncation_direction: str | None = None
    """Not read."""


class Prediction(AnswerModel):
    """One number of a text."""

    label: str
    """Name of the objective, or of the number that the URL asks for."""
    score: float


@serve_at(router, "/predict", protocols=("tei",), answer=list[Prediction] | list[list[Prediction]])
async def predict(body: PredictRequest, request: Request) -> Response:
    """Score texts in the shape of a classifier whose labels are the objectives.

    The number that the URL asks for comes first, since callers read the first entry, then the
    raw rewards in the order of the heads: never sorted, so that places mean the same always.
    """
    options = read_options(request)
    batch = _batch(body.inputs)
    sequences = [_alone(body.inputs)] if batch is None else batch
    items = [_item(request, options, texts, i) for i, texts in enumerate(sequences)]
    scores = await score_items(request, options, items, place="inputs")
    predictions = _predictions(scores, is_raw=body.raw_scores is not False)
    answer: Any = predictions[0] if batch is None else predictions
    return json_response(answer, headers=scores.headers)


def _batch(inputs: str | list[str] | list[list[str]]) -> list[list[str]] | None:
    """Return the texts of a batch; None if it is none."""
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], str)):
        return None
    return cast("list[list[str]]", inputs)


def _alone(inputs: str | list[str] | list[list[str]]) -> list[str]:
    return [inputs] if isinstance(inputs, str) else cast("list[str]", inputs)


def _item(request: Request, options: CompatOptions, texts: Sequence[str], index: int) -> ScoreItem:
    place = f"inputs[{index}]"
    if len(texts) == 2:
        prompt, answer = texts
        return compared(request, prompt, [answer], place=place)
    (text,) = whole_characters(request, texts)
    return read_conversation(text, place=place, template=options.template)


def _predictions(scores: CompatScores, *, is_raw: bool) -> list[list[dict[str, Any]]]:
    labels = [scores.kind, *scores.objectives]
    rows = [[one.value, *one.rewards.values()] for one in scores.candidates]
    return [
        [
            {"label": label, "score": score}
            for label, score in zip(labels, row if is_raw else sigmoids(row), strict=True)
        ]
        for row in rows
    ]
