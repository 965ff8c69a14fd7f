"""What crosses the wire when candidates are scored: request, answer, usage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from steerward.protocol.directions import PreferenceDirection, check_weights
from steerward.protocol.items import ScoreItem
from steerward.protocol.objectives import Objective
from steerward.protocol.policies import PolicyCard
from steerward.protocol.wire import AnswerModel, RequestModel, Text, num_keys

# As `RequestModel`: each wrong key would be reported, with memory of its own.
_MOST_OBJECTIVES = 1024


def _check_number_of_objectives(value: object) -> object:
    if num_keys(value) > _MOST_OBJECTIVES:
        raise ValueError(
            f"{num_keys(value):,} objectives, limit {_MOST_OBJECTIVES:,}; name only those that "
            "the reward model has"
        )
    return value


_FewObjectives = BeforeValidator(_check_number_of_objectives)
Direction = Annotated[dict[Text, float], _FewObjectives]
"""Numbers by objective, with signs."""
_NotNegative = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0})]
Weights = Annotated[dict[Text, _NotNegative], _FewObjectives]
"""Numbers by objective, none below 0, which `check_weights` refuses with the way out."""


_ONE_WAY_TO_STEER: dict[str, Any] = {
    "not": {
        "required": ["direction", "directions"],
        "properties": {"direction": {"type": "object"}, "directions": {"type": "array"}},
    }
}


class ScoreRequest(RequestModel):
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


class Rating(AnswerModel):
    """A reward on the scale of the ratings it was trained on."""

    value: float
    scale: str


class CandidateScore(AnswerModel):
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


class ItemScore(AnswerModel):
    """The scores of one item, candidates in request order."""

    index: int
    candidates: list[CandidateScore]
    gates: dict[str, float] | None = None
    """Gates of the prompt, for checkpoints whose gate reads the prompt only."""


class Usage(AnswerModel):
    """Tokens of one request. Prompt tokens are counted once an item."""

    prompt_tokens: int
    candidate_tokens: int
    prefix_tokens_saved: int
    """Prompt tokens that were not computed, counted for each candidate: other candidates, or
    other requests, had the same prompt or the same beginning of one."""
    cached_tokens: int = 0
    """Prompt tokens, counted once an item, that the server had kept from earlier requests."""
    total_tokens: int


class ScoreSummary(AnswerModel):
    """What an answer says of the request as a whole, in every encoding."""

    id: str
    object: Literal["score"] = "score"
    model: str
    weight_version: str
    """Identity of the weights that gave these numbers."""
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


class ScoreResponse(ScoreSummary):
    """Answer of ``POST /v1/score``."""

    items: list[ItemScore]


class ReplicaCard(AnswerModel):
    """One device that computes a model."""

    device: str
    """With a number behind it if several replicas share the device."""
    is_ready: bool
    reason: str
    """Why it takes no requests; empty if it does."""
    queued_tokens: int
    """Tokens that wait for it now."""


class ModelCard(AnswerModel):
    """A reward model's entry in ``GET /v1/models``."""

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


AnyCard = Annotated[ModelCard | PolicyCard, Field(discriminator="kind")]
"""What the server knows of a model of either kind."""


class ModelList(AnswerModel):
    """Answer of ``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[AnyCard]
