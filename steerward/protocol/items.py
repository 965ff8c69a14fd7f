"""What is scored: a prompt with its candidates, as text or as token ids."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from steerward.protocol.errors import brief
from steerward.protocol.wire import RequestModel, Text

Role = Literal["system", "user", "assistant", "tool"]


class Message(RequestModel):
    """One turn of a conversation."""

    role: Role
    content: Text
    """Plain text. Special-token text inside it is scored as text."""


def _prompt_form(value: object) -> str:
    """Tell the two forms of a prompt apart, so that errors speak of the one that was meant."""
    return "text" if isinstance(value, str) else "turns"


Prompt = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Message], Field(fail_fast=True), Tag("turns")],
    Discriminator(_prompt_form),
]


# Which keys an item of each form has; an absent key may also be null.
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": (
        "Prompt and candidates",
        {
            "prompt": {"type": ["string", "array"], "pattern": r"\S"},
            "candidates": {"type": "array"},
        },
    ),
    "messages": ("Messages", {"messages": {"type": "array"}}),
    "tokens": ("Token ids", {"tokens": {"type": "object"}}),
}


def _one_of(*names: str) -> dict[str, Any]:
    """Return the JSON schema of an item that has one of the forms and nothing of the others."""
    absent = {key: {"type": "null"} for name in names for key in _FORMS[name][1]}
    forms = [_FORMS[name] for name in names]
    return {
        "oneOf": [
            {"title": title, "required": list(keys), "properties": {**absent, **keys}}
            for title, keys in forms
        ]
    }


class TextItem(RequestModel):
    """One prompt with the candidates that answer it, or one whole conversation, as text."""

    model_config = ConfigDict(json_schema_extra=_one_of("prompt", "messages"))
    _ways: ClassVar[str] = "give prompt and candidates together, or messages"

    prompt: Prompt | None = None
    """A string (one user turn), or messages that end with a user or tool turn."""
    candidates: list[Text] | None = Field(default=None, min_length=1, fail_fast=True)
    """Answers to the prompt, scored side by side; the prompt is computed once."""
    messages: list[Message] | None = Field(default=None, min_length=1, fail_fast=True)
    """A whole conversation that ends with the assistant's turn, the only candidate."""

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self._is_text:
            self._check_text()
        return self

    @property
    def _is_text(self) -> bool:
        return True

    def _check_text(self) -> None:
        if self.messages is not None:
            if self.prompt is not None or self.candidates is not None:
                raise ValueError("give either prompt and candidates, or messages, not both")
            _check_turns(self.messages[:-1], last=self.messages[-1])
        elif self.prompt is None or self.candidates is None:
            raise ValueError(self._ways)
        elif isinstance(self.prompt, str):
            if not self.prompt.strip():
                raise ValueError("the prompt is empty; a score needs a user turn to judge by")
        else:
            _check_turns(self.prompt, last=None)

    @property
    def num_candidates(self) -> int:
        """How many candidates it has, whichever its form."""
        return 1 if self.messages is not None else len(self.candidates or ())

    @property
    def context(self) -> list[Message]:
        """The turns before the candidate."""
        if self.messages is not None:
            return self.messages[:-1]
        if isinstance(self.prompt, str):
            return [Message(role="user", content=self.prompt)]
        return list(self.prompt or [])

    @property
    def answers(self) -> list[str]:
        """The candidates as text, whichever form the item has."""
        if self.messages is not None:
            return [self.messages[-1].content]
        return list(self.candidates or [])


# Who checks the upper limit knows the model, and checks both at once: a limit here would make
# pydantic three times as slow.
_TokenId = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
TokenIds = Annotated[list[_TokenId], Field(min_length=1, fail_fast=True)]
"""Ids of the model's own vocabulary."""


# A list of its own for each of millions of ids would take fifty times the memory of the body. What
# a server takes is less by far and its own setting.
_MOST_CANDIDATES = 65_536


class PromptTokens(RequestModel):
    """One prompt with its candidates as token ids, which are scored exactly as they are sent.

    A conversation is the prompt followed by one candidate: with the opening token, all text of
    the template and the closing token. Nothing is added, cut or searched for.
    """

    prompt: TokenIds
    """Ids that all candidates share; computed once."""
    candidates: Annotated[
        list[TokenIds], Field(min_length=1, max_length=_MOST_CANDIDATES, fail_fast=True)
    ]
    """Ids that follow the prompt; the last of each is the one that the heads read."""
    gating_position: Annotated[int, Field(ge=0)] | None = None
    """Index in `prompt` of the token that the gate reads: the one that closes the turn before
    the candidate. May be left out only where no gate reads the prompt."""

    @model_validator(mode="after")
    def _gating_position_is_in_the_prompt(self) -> Self:
        position, length = self.gating_position, len(self.prompt)
        if position is not None and position >= length:
            raise ValueError(
                f"gating_position {brief(f'{position:,}')} is outside the prompt, which has "
                f"{length:,} tokens; it counts from 0, so give 0 to {length - 1:,}"
            )
        return self


class ScoreItem(TextItem):
    """One prompt with the candidates that answer it, or one whole conversation.

    As text, or as the token ids that `POST /v1/tokenize` gives.
    """

    model_config = ConfigDict(json_schema_extra=_one_of("prompt", "messages", "tokens"))
    _ways: ClassVar[str] = "give prompt and candidates together, or messages, or tokens"

    tokens: PromptTokens | None = None
    """Prompt and candidates as token ids, in place of the text."""

    @model_validator(mode="after")
    def _has_tokens_or_text(self) -> Self:
        texts = (self.prompt, self.candidates, self.messages)
        if self.tokens is not None and any(text is not None for text in texts):
            raise ValueError("give either text or tokens, not both")
        return self

    @property
    def _is_text(self) -> bool:
        return self.tokens is None

    @property
    def num_candidates(self) -> int:
        """How many candidates it has, whichever its form."""
        return super().num_candidates if self.tokens is None else len(self.tokens.candidates)


def _check_turns(context: list[Message], *, last: Message | None) -> None:
    if last is not None and last.role != "assistant":
        raise ValueError(
            f"messages end with a {last.role} turn; end them with the assistant's turn to be "
            "scored, or send prompt and candidates"
        )
    if not any(message.role == "user" for message in context):
        raise ValueError("there is no user turn before the candidate; add the prompt as one")
    if context[-1].role not in ("user", "tool"):
        raise ValueError(
            f"the turn before the candidate is a {context[-1].role} turn; "
            "a candidate answers a user or tool turn"
        )
    if not context[-1].content.strip():
        raise ValueError("the turn before the candidate is empty; there is nothing to judge by")
