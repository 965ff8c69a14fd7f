"""Settings of judges, as users write them in JSON or TOML, and the judges that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from steerward.judges.judge import Judge
from steerward.judges.labels import LabelProbabilities
from steerward.judges.mixture import Mixture
from steerward.judges.model_settings import LanguageModelSettings, RewardThresholdSettings
from steerward.judges.rule_settings import (
    CodeTestsSettings,
    ExactAnswerSettings,
    InstructionFollowingSettings,
    JsonSchemaSettings,
    KeywordsSettings,
    LanguageSettings,
    LengthSettings,
    NumericAnswerSettings,
    PatternSettings,
)
from steerward.judges.threshold import RewardColumn
from steerward.protocol.validation import invalid_request
from steerward.protocol.wire import RequestModel

_MOST_JUDGES = 32

JudgeSettings = Annotated[
    ExactAnswerSettings
    | NumericAnswerSettings
    | LengthSettings
    | KeywordsSettings
    | PatternSettings
    | LanguageSettings
    | JsonSchemaSettings
    | InstructionFollowingSettings
    | CodeTestsSettings
    | LanguageModelSettings
    | RewardThresholdSettings,
    Field(discriminator="type"),
]
"""Settings of one judge; `type` says which."""


class MixtureSettings(RequestModel):
    """Settings of a mixture of judges."""

    judges: Annotated[list[JudgeSettings], Field(max_length=_MOST_JUDGES)] = []
    """At most 32, each with its own name; a completion is satisfied if all that apply to its row
    pass."""
    max_failure_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Largest share of completions that a judge may fail to judge in one call before training
    stops. Such completions count as violations."""


_JUDGES: TypeAdapter[list[JudgeSettings]] = TypeAdapter(
    Annotated[list[JudgeSettings], Field(max_length=_MOST_JUDGES)]
)


def from_settings(
    settings: Sequence[Mapping[str, Any] | JudgeSettings],
    *,
    columns: Mapping[str, RewardColumn] | None = None,
    models: Mapping[str, LabelProbabilities] | None = None,
) -> list[Judge]:
    """Return the judges that settings describe, in order.

    Args:
        settings: One for each judge, at most 32.
        columns: Reward columns by name, for thresholds.
        models: Models in this process by name, for judges without a URL.

    Raises:
        InvalidRequest: If a setting is wrong, or names a column or a model that is not given.
    """
    try:
        read = _JUDGES.validate_python(list(settings))
    except ValidationError as error:
        raise invalid_request(error.errors()) from None
    return [one.build(columns=columns or {}, models=models or {}) for one in read]


def mixture_from_settings(
    settings: MixtureSettings | Mapping[str, Any],
    *,
    columns: Mapping[str, RewardColumn] | None = None,
    models: Mapping[str, LabelProbabilities] | None = None,
) -> Mixture:
    """Return the mixture that settings describe; `from_settings` says what the arguments are.

    Raises:
        InvalidRequest: If a setting is wrong, or names a column or a model that is not given.
    """
    try:
        read = MixtureSettings.model_validate(settings)
    except ValidationError as error:
        raise invalid_request(error.errors()) from None
    judges = from_settings(read.judges, columns=columns, models=models)
    return Mixture(judges, max_failure_rate=read.max_failure_rate)
