"""What crosses the wire when candidates are scored: request, answer, usage.

Requests refuse unknown keys; answers may grow, so the answer types keep keys they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from steerward.protocol.directions import PreferenceDirection, check_weights
from steerward.protocol.objectives import Objective

Role = Literal["system", "user", "assistant", "tool"]


# pydantic reports every wrong element and key, each with memory of its own: a body of millions
# of them must end at the first, so lists fail fast and mappings have a limit.
_MOST_KEYS = 32
_MOST_OBJECTIVES = 1024


def _num_keys(value: object) -> int:
    return len(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else 0


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: object) -> object:
        if _num_keys(value) > _MOST_KEYS:
            known = ", ".join(cls.model_fields)
            raise ValueError(
                f"{_num_keys(value):,} keys; the known ones are {known}; remove the others"
            )
        return value


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


def _check_unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"not Unicode text: a lone surrogate at position {error.start}; send whole characters"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]
"""Text that a tokenizer can read; JSON escapes can spell what is none."""


def _check_number_of_objectives(value: object) -> object:
    if _num_keys(value) > _MOST_OBJECTIVES:
        raise ValueError(
            f"{_num_keys(value):,} objectives, limit {_MOST_OBJECTIVES:,}; name only those that "
            "the reward model has"
        )
    return value


_FewObjectives = BeforeValidator(_check_number_of_objectives)
Direction = Annotated[dict[Text, float], _FewObjectives]
"""Numbers by objective, with signs."""
_NotNegative = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0})]
Weights = Annotated[dict[Text, _NotNegative], _FewObjectives]
"""Numbers by objective, none below 0, which `check_weights` refuses with the way out."""


class Message(_Request):
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


_TWO_FORMS: dict[str, Any] = {
    "oneOf": [
        {
            "title": "Prompt and candidates",
            "required": ["prompt", "candidates"],
            "properties": {
                "prompt": {"type": ["string", "array"], "pattern": r"\S"},
                "candidates": {"type": "array"},
                "messages": {"type": "null"},
            },
        },
        {
            "title": "Messages",
            "required": ["messages"],
            "properties": {
                "prompt": {"type": "null"},
                "candidates": {"type": "null"},
                "messages": {"type": "array"},
            },
        },
    ]
}


class ScoreItem(_Request):
    """One prompt with the candidates that answer it, or one whole conversation."""

    model_config = ConfigDict(json_schema_extra=_TWO_FORMS)

    prompt: Prompt | None = None
    """A string (one user turn), or messages that end with a user or tool turn."""
    candidates: list[Text] | None = Field(default=None, min_length=1, fail_fast=True)
    """Answers to the prompt, scored side by side; the prompt is computed once."""
    messages: list[Message] | None = Field(default=None, min_length=1, fail_fast=True)
    """A whole conversation that ends with the assistant's turn, the only candidate."""

    @model_validator(mode="after")
    def _is_one_form(self) -> ScoreItem:
        if self.messages is not None:
            if self.prompt is not None or self.candidates is not None:
                raise ValueError("give either prompt and candidates, or messages, not both")
            _check_turns(self.messages[:-1], last=self.messages[-1])
        elif self.prompt is None or self.candidates is None:
            raise ValueError("give prompt and candidates together, or messages")
        elif isinstance(self.prompt, str):
            if not self.prompt.strip():
                raise ValueError("the prompt is empty; a score needs a user turn to judge by")
        else:
            _check_turns(self.prompt, last=None)
        return self

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
        """The candidates, whichever form the item has."""
        if self.messages is not None:
            return [self.messages[-1].content]
        return list(self.candidates or [])


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


_ONE_WAY_TO_STEER: dict[str, Any] = {
    "not": {
        "required": ["direction", "directions"],
        "properties": {"direction": {"type": "object"}, "directions": {"type": "array"}},
    }
}


class ScoreRequest(_Request):
    """Body of ``POST /v1/score``."""

    model_config = ConfigDict(json_schema_extra=_ONE_WAY_TO_STEER)

    model: Text | None = None
    """Name of a reward model of this server; may be left out where there is only one."""
    items: list[ScoreItem] = Field(min_length=1, fail_fast=True)
    """Prompts with their candidates; each is scored by itself."""
    weights: Weights | None = None
    """Non-negative numbers by objective that take the place of the gates; the reward transform
    still applies. Gives `weighted_score`."""
    direction: Direction | None = None
    """Preference direction by objective, brought to norm 1. Gives `direction_score`."""
    directions: list[Direction] | None = Field(
        default=None, min_length=1, max_length=256, fail_fast=True
    )
    """Several directions at once, for one forward pass. Gives `direction_scores`."""
    explain: bool = False
    """Add gates, coefficients, contributions and ratings to the answer."""
    timeout_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    """Give up after so many seconds, at least a thousandth of one; the server's own limit applies
    if it is shorter."""

    @model_validator(mode="after")
    def _one_way_to_steer(self) -> ScoreRequest:
        if self.direction is not None and self.directions is not None:
            raise ValueError("give either direction or directions, not both")
        return self

    def checked_weights(self) -> dict[str, float] | None:
        """Return the weights, or None.

        Raises:
            InvalidDirection: If they are negative, all zero or not finite.
        """
        return None if self.weights is None else check_weights(self.weights)

    def unit_directions(self) -> list[PreferenceDirection]:
        """Return the directions asked for, each of norm 1.

        Raises:
            InvalidDirection: If one is zero or not finite.
        """
        if self.direction is not None:
            return [PreferenceDirection.from_mapping(self.direction)]
        return [
            PreferenceDirection.from_mapping(components, param=f"directions[{i}]")
            for i, components in enumerate(self.directions or [])
        ]


class Rating(_Answer):
    """A reward on the scale of the ratings it was trained on."""

    value: float
    scale: str


class CandidateScore(_Answer):
    """The scores of one candidate. Mappings are by objective, in head order."""

    index: int
    score: float | None
    """The checkpoint's own score; None if it has several objectives and no gate."""
    rewards: dict[str, float]
    """Raw head outputs, before the reward transform."""
    tokens: int
    """Tokens of the candidate with its closing template text, without the prompt."""
    weighted_score: float | None = None
    """Score with the request's weights in place of the gates."""
    direction_score: float | None = None
    """Dot product of the request's unit direction with the rewards."""
    direction_scores: list[float] | None = None
    """The same for each of the request's directions."""
    coefficients: dict[str, float] | None = None
    """Effective weight of each raw reward: gates times transposed transform."""
    contributions: dict[str, float] | None = None
    """Coefficient times reward; they sum to the score."""
    ratings: dict[str, Rating] | None = None
    """Rewards on their rating scales, where those are documented."""
    gates: dict[str, float] | None = None
    """Gates of this candidate, for checkpoints whose gate reads the candidate."""


class ItemScore(_Answer):
    """The scores of one item, candidates in request order."""

    index: int
    candidates: list[CandidateScore]
    gates: dict[str, float] | None = None
    """Gates of the prompt, for checkpoints whose gate reads the prompt only."""


class Usage(_Answer):
    """Tokens of one request. Prompt tokens are counted once an item."""

    prompt_tokens: int
    candidate_tokens: int
    prefix_tokens_saved: int
    """Prompt tokens that were not computed again for further candidates of the prompt."""
    total_tokens: int


class ScoreResponse(_Answer):
    """Answer of ``POST /v1/score``."""

    id: str
    object: Literal["score"] = "score"
    model: str
    weight_version: str
    """Identity of the weights that gave these numbers."""
    items: list[ItemScore]
    usage: Usage
    weights: dict[str, float] | None = None
    """The weights as used."""
    direction: dict[str, float] | None = None
    """The direction as used, of norm 1."""
    directions: list[dict[str, float]] | None = None
    """The directions as used, each of norm 1."""
    direction_scale: Literal["standardised", "raw"] | None = None
    """Whether rewards were standardised by the checkpoint's reference mean and spread before
    the dot product with a direction, or taken raw."""


class ReplicaCard(_Answer):
    """One device that computes a model."""

    device: str
    """With a number behind it if several replicas share the device."""
    is_ready: bool
    reason: str
    """Why it takes no requests; empty if it does."""
    queued_tokens: int
    """Tokens that wait for it now."""


class ModelCard(_Answer):
    """One entry of ``GET /v1/models``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Start of the server, seconds since 1970."""
    owned_by: str = "steerward"
    kind: Literal["reward"] = "reward"
    architecture: str
    """Layout of the heads: armorm, qrm, urm, sequence-classification or steerward."""
    objectives: list[Objective]
    has_gate: bool
    max_input_tokens: int
    """Longest prompt plus candidate, in tokens of this model."""
    weight_version: str
    dtype: str
    device: str
    """Where it is computed; several are separated by commas."""
    num_parameters: int
    queued_tokens: int
    """Tokens that wait for the device now, over all replicas."""
    replicas: list[ReplicaCard] = []
    """Each device that computes the model, with its queue."""


class ModelList(_Answer):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
