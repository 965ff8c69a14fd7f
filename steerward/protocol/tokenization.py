"""What crosses the wire when conversations become token ids: request and answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from steerward.protocol.items import PromptTokens, TextItem
from steerward.protocol.wire import AnswerModel, RequestModel, Text


class TokenizeRequest(RequestModel):
    """Body of ``POST /v1/tokenize``."""

    model: Text | None = None
    """Name of a reward model of this server; may be left out where there is only one."""
    items: list[TextItem] = Field(min_length=1, fail_fast=True)
    """Prompts with their candidates, or whole conversations, as they would be scored."""


class TokenizedItem(AnswerModel):
    """The token ids of one item."""

    index: int
    tokens: PromptTokens
    """What to send in place of the text; its score is the same."""
    prompt_tokens: int
    candidate_tokens: list[int]
    """Tokens of each candidate, in request order."""


class TokenizeResponse(AnswerModel):
    """Answer of ``POST /v1/tokenize``."""

    object: Literal["tokens"] = "tokens"
    model: str
    weight_version: str
    """Identity of the model that reads these ids."""
    items: list[TokenizedItem]
