"""What the protocols share that send prompt and answer apart, or a conversation as turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError
from starlette.requests import Request

from steerward.protocol.chat import ChatMessage, TextPart
from steerward.protocol.conversations import at, conversation
from steerward.protocol.items import Message, ScoreItem
from steerward.protocol.sampling import text_from
from steerward.protocol.transcripts import read_conversation, without_leftovers
from steerward.protocol.validation import invalid_request
from steerward.server.compat.options import CompatOptions
from steerward.server.compat.scoring import whole_characters


def _content(value: Any) -> object:
    return text_from(value, what="content")


class Turn(ChatMessage):
    """One turn of a conversation; halves of characters are replaced, not refused."""

    content: Annotated[str, BeforeValidator(_content, json_schema_input_type=str | list[TextPart])]
    """Text, or text parts, which are joined. Special-token text inside it is scored as text."""


def _prompt_form(value: object) -> str:
    """Tell the two forms of a prompt apart, so that errors speak of the one that was meant."""
    return "text" if isinstance(value, str) else "turns"


Turns = Annotated[list[Turn], Field(min_length=1, fail_fast=True)]
Prompt = Annotated[
    Annotated[str, Tag("text")] | Annotated[Turns, Tag("turns")], Discriminator(_prompt_form)
]
"""A text, perhaps in the markup of a chat template, or turns."""


def messages_of(request: Request, turns: Sequence[ChatMessage]) -> list[Message]:
    """Return turns as messages, with whole characters."""
    found = [turn.turn for turn in turns]
    contents = whole_characters(request, [turn["content"] for turn in found])
    return [
        Message.model_validate({"role": turn["role"], "content": content})
        for turn, content in zip(found, contents, strict=True)
    ]


def answered(
    request: Request, options: CompatOptions, prompt: str | Sequence[Turn], answer: str
) -> ScoreItem:
    """Return the item of a prompt and the answer that a policy gave to it.

    Tokens that decoding leaves at the end of the answer are taken off. A prompt in markup becomes
    the turns that it was made of.

    Raises:
        InvalidRequest: If the prompt cannot be read for sure, or has nothing to answer.
    """
    (answer,) = whole_characters(request, [answer])
    if isinstance(prompt, str):
        (prompt,) = whole_characters(request, [prompt])
        return read_conversation(
            prompt + answer, place="prompt", template=options.template, prompt=prompt
        )
    answer = without_leftovers(answer, options.template)
    messages = [*messages_of(request, prompt), Message(role="assistant", content=answer)]
    return conversation(messages, place="prompt")


def compared(request: Request, prompt: str, answers: Sequence[str], *, place: str) -> ScoreItem:
    """Return the item of answers to one user turn, taken as they are; the prompt is shared.

    Args:
        request: That they came with.
        prompt: The user turn.
        answers: To be scored side by side.
        place: What the prompt is called in the caller's body, for errors.

    Raises:
        InvalidRequest: If the prompt is empty.
    """
    (prompt,) = whole_characters(request, [prompt])
    try:
        return ScoreItem(prompt=prompt, candidates=whole_characters(request, answers))
    except ValidationError as error:
        raise at(place, invalid_request(error.errors())) from None
