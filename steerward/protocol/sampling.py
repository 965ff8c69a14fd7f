"""What requests for completions have in common: how many, how drawn, how steered.

Names and ranges are OpenAI's where OpenAI has the field. What is not supported is refused by
name, never ignored; null stands for the default wherever OpenAI takes it.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)

from steerward.protocol.policies import Steering
from steerward.protocol.scoring import Direction
from steerward.protocol.wire import RequestModel, Text, num_keys

MAX_COMPLETIONS = 128
"""Most completions that one request draws."""
_MOST_LABELS = 16
_MOST_STOPS = 4


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _few_labels(value: object) -> object:
    if num_keys(value) > _MOST_LABELS:
        raise ValueError(f"{num_keys(value):,} labels, limit {_MOST_LABELS}; send fewer")
    return value


def _refuse(value: object) -> object:
    """Take what asks for nothing: null and false."""
    if value is not None and value is not False:
        raise ValueError("not supported by this server; leave it out")
    return None


Unsupported = Annotated[
    None, BeforeValidator(_refuse), Field(description="Not supported: refused unless null.")
]
"""A field of OpenAI's that this server does not have."""


def _are_not_empty(stops: list[str]) -> list[str]:
    if not all(stops):
        raise ValueError("a stop text is empty, and would end every completion; leave it out")
    return stops


_StopList = Annotated[list[Text], Field(max_length=_MOST_STOPS, fail_fast=True)]
_Stops = Annotated[
    _StopList,
    BeforeValidator(_as_list, json_schema_input_type=Text | _StopList),
    AfterValidator(_are_not_empty),
]
Labels = Annotated[dict[Text, Text], BeforeValidator(_few_labels)]

_COMPONENTS: TypeAdapter[dict[str, float]] = TypeAdapter(Direction, config=ConfigDict(strict=True))
_NAME: TypeAdapter[str] = TypeAdapter(Text, config=ConfigDict(strict=True))


def _numbers_or_name(value: object) -> dict[str, float] | str:
    """Check the form that was meant: a union would speak of both."""
    form = _NAME if isinstance(value, str) else _COMPONENTS
    return form.validate_python(value)


DirectionOrProfile = Annotated[
    dict[str, float] | str,
    PlainValidator(_numbers_or_name, json_schema_input_type=Direction | Text),
]
"""Numbers by objective, with signs, or the name of a direction that the server knows."""


class StreamOptions(RequestModel):
    """What a stream holds besides the completions."""

    include_usage: bool | None = None
    """Add a last chunk with the usage of the whole request."""
    include_obfuscation: bool | None = None
    """Taken, and without effect: chunks are not padded."""


class SampledRequest(RequestModel):
    """How completions are drawn and steered, whatever they go on from."""

    model: Text | None = None
    """Name of a policy of this server or of one of its variants; may be left out where there is
    only one."""
    n: Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)] | None = None
    """Completions to return. Default: 1."""
    best_of: Annotated[int, Field(ge=1, le=MAX_COMPLETIONS)] | None = None
    """Completions to draw, of which the best n are returned."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0, and what is below 0.0001, takes the likeliest token always. Default: the policy's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the likeliest tokens that together have this probability. Default: the policy's
    own."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest completion, in tokens. Default: what the policy's length limit leaves."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Older name of `max_completion_tokens`."""
    stop: _Stops | None = None
    """Up to four texts that end a completion; they are not part of it."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Draw the same completions again, with the same weights, settings and software: answers with
    the same `system_fingerprint`."""
    stream: bool | None = None
    """Answer with server-sent events as the completions come."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Taken from the logit of each token that the completion has already. Default: 0."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """The same, times how often the completion has it. Default: 0."""
    user: Text | None = None
    """Your name for who asks; without effect on the answer."""
    safety_identifier: Text | None = None
    """Newer name of `user`."""
    metadata: Labels | None = None
    """Your labels for the request; without effect on the answer."""
    timeout_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    """Give up after so many seconds, at least a thousandth of one; the server's own limit applies
    if it is shorter."""
    direction: DirectionOrProfile | None = None
    """Preference direction by objective, brought to norm 1, or the name of one that the server
    was started with."""
    angle: float | None = None
    """The direction as degrees from the first objective of the policy's rule towards its second,
    in place of `direction`."""
    steering: Steering = "auto"
    """How the direction acts: `prompt` tells it to a policy that was trained to read it, `best_of`
    chooses among samples by their rewards, `neighbours` does both with directions around it;
    `auto` is what policy and reward model support."""
    force: bool = False
    """Tell the policy a direction outside of what it was trained on, which is refused else."""
    num_neighbours: Annotated[int, Field(ge=1, le=64)] = 5
    """Of `neighbours`: directions to draw from."""
    neighbour_angle: Annotated[float, Field(gt=0, le=180)] = 30.0
    """Of `neighbours`: how far they are from the direction at most, in degrees."""
    reward: bool = True
    """Score the completions with a reward model of this server, where there is one. Without
    effect where the rewards choose among samples."""
    reward_model: Text | None = None
    """The one to score with. Default: the first that the server was started with."""

    response_format: Unsupported = None
    service_tier: Unsupported = None
    store: Unsupported = None
    logit_bias: Unsupported = None
    prompt_cache_key: Unsupported = None

    @field_validator("best_of")
    @classmethod
    def _draws_what_it_returns(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        n = info.data.get("n") or 1
        if best_of is not None and best_of < n:
            raise ValueError(f"{best_of} is less than n, {n}; draw at least what is returned")
        return best_of

    @field_validator("max_tokens")
    @classmethod
    def _has_one_length(cls, max_tokens: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_completion_tokens")
        if max_tokens is not None and other not in (None, max_tokens):
            raise ValueError(f"{max_tokens} and max_completion_tokens is {other}; give one")
        return max_tokens

    @field_validator("stream_options")
    @classmethod
    def _streams(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise ValueError("only with stream; set stream to true or leave it out")
        return options

    @field_validator("angle")
    @classmethod
    def _has_one_direction(cls, angle: float | None, info: ValidationInfo) -> float | None:
        if angle is not None and info.data.get("direction") is not None:
            raise ValueError("give either direction or angle, not both")
        return angle

    @property
    def num_choices(self) -> int:
        """Completions to return."""
        return self.n or 1

    @property
    def longest(self) -> int | None:
        """Longest completion asked for, by whichever name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def has_usage_chunk(self) -> bool:
        """Whether the stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def text_from(value: Any, *, what: str) -> object:
    """Return content that may come as a list of text parts as one text, anything else as it is.

    Raises:
        ValueError: If there is a part that is not text.
    """
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for i, part in enumerate(cast("list[Any]", value)):
        fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
        text = fields.get("text")
        if fields.keys() != {"type", "text"} or fields["type"] != "text" or type(text) is not str:
            raise ValueError(
                f"part {i} of the {what} is not {{'type': 'text', 'text': ...}}; other kinds are "
                "not supported"
            )
        texts.append(text)
    return "".join(texts)
