"""Chat completions on the wire: OpenAI's request and answers, with directions and rewards."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from steerward.protocol.items import Role
from steerward.protocol.sampling import SampledRequest, Unsupported, text_from
from steerward.protocol.steered import ChoiceReward, CompletionUsage, FinishReason, SteeringUsed
from steerward.protocol.wire import AnswerModel, RequestModel, Text


def _turn_text(value: Any) -> object:
    return text_from(value, what="content")


class TextPart(RequestModel):
    """A part of a turn's content."""

    type: Literal["text"]
    text: Text


class ChatMessage(RequestModel):
    """One turn of a conversation; the answer's own message can be sent back as it came."""

    role: Role | Literal["developer"]
    """`developer` is another word for `system`."""
    content: Annotated[
        Text, BeforeValidator(_turn_text, json_schema_input_type=Text | list[TextPart])
    ]
    """Text, or text parts, which are joined. Special-token text inside it is read as text."""
    name: Unsupported = None
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None
    tool_call_id: Unsupported = None

    @property
    def turn(self) -> dict[str, str]:
        """The turn as templates read it."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class ChatCompletionRequest(SampledRequest):
    """Body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    """The conversation so far. It ends with a user or tool turn, or where `model` is a reward
    model with the assistant's turn, which is scored."""
    logprobs: bool | None = None
    """Add the log-probability of each token: natural logarithm, before temperature and top_p."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """With `logprobs`: how many of the likeliest tokens to add in each place."""

    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    modalities: Unsupported = None
    parallel_tool_calls: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    tool_choice: Unsupported = None
    tools: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    @field_validator("top_logprobs")
    @classmethod
    def _has_logprobs(cls, top: int | None, info: ValidationInfo) -> int | None:
        if top is not None and not info.data.get("logprobs"):
            raise ValueError("only with logprobs; set logprobs to true or leave it out")
        return top

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        last = self.messages[-1]
        # Whether the model goes on from an answer, or scores it, the server knows.
        if last.role not in ("user", "tool", "assistant"):
            raise ValueError(
                f"the last turn has the role {last.role}; a completion answers a user or tool turn"
            )
        if not self.is_answered and not last.content.strip():
            raise ValueError("the last turn is empty; there is nothing to answer")
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("there is no user turn; add the prompt as one")
        return self

    @property
    def is_answered(self) -> bool:
        """Whether the conversation ends with the assistant's turn."""
        return self.messages[-1].role == "assistant"

    @property
    def turns(self) -> tuple[dict[str, str], ...]:
        """The conversation as templates read it."""
        return tuple(message.turn for message in self.messages)

    @property
    def num_top_logprobs(self) -> int | None:
        """Alternatives to report for each token; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class LikelyToken(AnswerModel):
    """A token with its log-probability."""

    token: str
    """Its text; a token may be a part of a character."""
    logprob: float
    """-9999 stands for what cannot be."""
    bytes: list[int] | None


class DrawnToken(LikelyToken):
    """The token that was drawn, with the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class ChoiceLogprobs(AnswerModel):
    """The log-probabilities of a completion, or of a piece of it."""

    content: list[DrawnToken] | None
    refusal: None = None


class AssistantMessage(AnswerModel):
    """The turn that was drawn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(AnswerModel):
    """One completion."""

    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason
    reward: ChoiceReward | None


class ChatCompletion(AnswerModel):
    """Answer of ``POST /v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[ChatChoice]
    """The best first, where rewards chose among samples."""
    usage: CompletionUsage
    system_fingerprint: str
    """Changes with whatever may change the answer to one seed."""
    steering: SteeringUsed


class MessageDelta(AnswerModel):
    """What is new of a turn."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(AnswerModel):
    """What is new of one completion."""

    index: int
    delta: MessageDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None
    """In the last chunk of the completion."""
    reward: ChoiceReward | None = None
    """In the last chunk of the completion."""


class ChatCompletionChunk(AnswerModel):
    """An event of the streamed answer of ``POST /v1/chat/completions``."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    """None in the chunk with the usage."""
    usage: CompletionUsage | None = None
    system_fingerprint: str
    steering: SteeringUsed | None = None
    """In the first chunk, and, with what is known only then, where the last completion ends."""
