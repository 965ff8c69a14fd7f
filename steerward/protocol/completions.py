"""Text completions on the wire: OpenAI's older endpoint, where no chat template is applied."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from steerward.protocol.sampling import SampledRequest, Unsupported
from steerward.protocol.steered import ChoiceReward, CompletionUsage, FinishReason, SteeringUsed
from steerward.protocol.wire import AnswerModel, Text


def _only_text(value: Any) -> object:
    if isinstance(value, list):
        prompts = cast("list[Any]", value)
        if len(prompts) != 1 or not isinstance(prompts[0], str):
            what = f"a list of {len(prompts):,}" if len(prompts) != 1 else "a list of token ids"
            raise ValueError(
                f"{what}; one text is completed at a time: send a string, and a request for each"
            )
        value = prompts[0]
    if isinstance(value, str) and not value.strip():
        raise ValueError("the prompt is empty; there is nothing to go on from")
    return value


class CompletionRequest(SampledRequest):
    """Body of ``POST /v1/completions``."""

    prompt: Annotated[
        Text,
        BeforeValidator(
            _only_text,
            json_schema_input_type=Text | Annotated[list[Text], Field(min_length=1, max_length=1)],
        ),
    ]
    """The text to go on from, or a list with this text alone."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Add the log-probability of each token and of so many of the likeliest in its place."""

    echo: Unsupported = None
    suffix: Unsupported = None

    @property
    def num_top_logprobs(self) -> int | None:
        """Alternatives to report for each token; None: no log-probabilities at all."""
        return self.logprobs


class CompletionLogprobs(AnswerModel):
    """The log-probabilities of a completion, or of a piece of it, token by token."""

    tokens: list[str]
    token_logprobs: list[float]
    """Natural logarithm, before temperature and top_p; -9999 stands for what cannot be."""
    top_logprobs: list[dict[str, float]]
    """The likeliest tokens and the one that was drawn."""
    text_offset: list[int]
    """Characters before the token; special tokens, which the text leaves out, count too."""


class CompletionChoice(AnswerModel):
    """One completion, or what is new of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    """None in a stream before the completion has ended."""
    reward: ChoiceReward | None = None


class Completion(AnswerModel):
    """Answer of ``POST /v1/completions``, and each event where it is streamed."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[CompletionChoice]
    """The best first, where rewards chose among samples."""
    usage: CompletionUsage | None = None
    """In a stream, in the last chunk if that was asked for."""
    system_fingerprint: str
    """Changes with whatever may change the answer to one seed."""
    steering: SteeringUsed | None = None
    """In a stream, in the first chunk, and, with what is known only then, where the last
    completion ends."""
