"""What the protocols of joined texts share: texts of a body, read and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

from pydantic import BeforeValidator, WithJsonSchema
from starlette.requests import Request

from steerward.protocol.transcripts import read_conversation
from steerward.server.compat.options import read_options
from steerward.server.compat.scoring import CompatScores, score_items, whole_characters


def _check_texts(value: object) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(
        isinstance(text, str) for text in cast("list[object]", value)
    ):
        return cast("list[str]", value)
    raise ValueError(
        "this is neither a text nor a list of texts; send texts, as token ids do not tell where "
        "the answer begins"
    )


Texts = Annotated[
    str | list[str],
    BeforeValidator(_check_texts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One text or several. Not refused for halves of characters: those are replaced."""


def as_list(texts: str | list[str]) -> list[str]:
    """Return texts as a list, also where there is one that is in none."""
    return [texts] if isinstance(texts, str) else texts


async def score_texts(
    request: Request,
    texts: Sequence[str],
    *,
    place: str,
    prompts: Sequence[str] | None = None,
    named_model: str | None = None,
    explain: bool = False,
) -> CompatScores:
    """Return the scores of texts in which prompt and answer are joined.

    Args:
        request: Whose URL has the options.
        texts: In the markup of a chat template, or behind their prompts.
        place: What the texts are called in the body, for errors.
        prompts: Beginning of each text, where the protocol has it.
        named_model: As `score_items`.
        explain: As `score_items`.

    Raises:
        InvalidRequest: If a text cannot be taken apart for sure.
        SteerwardError: As `score_items`.
    """
    options = read_options(request)
    whole = whole_characters(request, texts)
    begins: Sequence[str | None] = (
        [None] * len(texts) if prompts is None else whole_characters(request, prompts)
    )
    items = [
        read_conversation(text, place=f"{place}[{i}]", template=options.template, prompt=prompt)
        for i, (text, prompt) in enumerate(zip(whole, begins, strict=True))
    ]
    return await score_items(
        request, options, items, place=place, named_model=named_model, explain=explain
    )
