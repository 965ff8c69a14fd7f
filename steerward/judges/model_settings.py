"""Settings of the judges that ask a model: a language model, or a reward column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from steerward.judges.labels import LabelProbabilities, ServerLabels
from steerward.judges.llm import LanguageModelJudge
from steerward.judges.rule_settings import Count, JudgeName, Name, Seconds, Size
from steerward.judges.templates import Template, template_named
from steerward.judges.threshold import RewardColumn, RewardThreshold
from steerward.protocol.errors import InvalidRequest, brief
from steerward.protocol.wire import RequestModel


class TemplateSettings(RequestModel):
    """A question of the user's own."""

    text: str
    """With the places {prompt}, {completion} and {gold}; other braces are written twice."""
    passing: str
    """Label with which a completion passes; one token of the model."""
    failing: str
    """Label with which it fails; one token of the model."""
    system: str = ""
    """Of a system turn before the question."""


class LanguageModelSettings(RequestModel):
    """A language model answers a question with the label that says so."""

    type: Literal["language_model"]
    name: JudgeName | None = None
    """Under which verdicts are logged. Default: that of the template."""
    template: Name | TemplateSettings
    """The question: false_refusal, factuality, safety, style, or one of the user's own."""
    model: Name
    """Its name on the server, or of a model in this process."""
    url: Name | None = None
    """Of an OpenAI-compatible server. Default: the model is one in this process."""
    api_key: SecretStr | None = None
    """Sent to the server as a bearer key."""
    max_retries: Size = 3
    """Further attempts after an answer of overload, or none."""
    timeout_s: Seconds = 60.0
    """Of an attempt."""
    num_parallel: Count = 8
    """Requests at once."""
    extra_body: dict[str, Any] = {}
    """Further fields of the requests, such as reward = false for servers of Steerward."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the passing label, of both together, from which a completion passes."""
    least_mass: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Probability of both labels together below which the judge failed."""
    gold_column: Name = "answer"
    """Holds the gold answer, for templates with a place for it."""
    applies_column: Name | None = None
    """Holds whether the judge applies to the row. Default: it does to all."""

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.name is None and isinstance(self.template, TemplateSettings):
            raise ValueError("a judge with a template of its own needs a name")
        return self

    def build(
        self,
        *,
        columns: Mapping[str, RewardColumn],  # noqa: ARG002  # of those that need them
        models: Mapping[str, LabelProbabilities],
    ) -> LanguageModelJudge:
        """Return the judge.

        Raises:
            InvalidRequest: If the template is none, or there is no such model.
        """
        own = self.template
        template = template_named(own) if isinstance(own, str) else Template(**own.model_dump())
        return LanguageModelJudge(
            name=self.name or str(own),
            template=template,
            label_probabilities=self._probabilities(models),
            threshold=self.threshold,
            least_mass=self.least_mass,
            gold_column=self.gold_column,
            applies_column=self.applies_column,
        )

    def _probabilities(self, models: Mapping[str, LabelProbabilities]) -> LabelProbabilities:
        if self.url is not None:
            return ServerLabels(
                self.url,
                model=self.model,
                api_key=self.api_key.get_secret_value() if self.api_key else None,
                max_retries=self.max_retries,
                timeout_s=self.timeout_s,
                num_parallel=self.num_parallel,
                extra_body=self.extra_body,
            )
        if self.model not in models:
            raise InvalidRequest(
                f"there is no model {brief(self.model)!r} in this process; give the url of a "
                f"server, or one of: {', '.join(map(brief, models)) or 'none are there'}",
                param="model",
            )
        return models[self.model]


class RewardThresholdSettings(RequestModel):
    """The raw value of a reward column is within limits, both included."""

    type: Literal["reward_threshold"]
    name: JudgeName | None = None
    """Under which verdicts are logged. Default: that of the column."""
    column: Name
    """Name of the reward column."""
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Smallest reward that passes, on the column's own scale."""
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Largest reward that passes, on the column's own scale."""

    def build(
        self,
        *,
        columns: Mapping[str, RewardColumn],
        models: Mapping[str, LabelProbabilities],  # noqa: ARG002  # of those that need them
    ) -> RewardThreshold:
        """Return the judge.

        Raises:
            InvalidRequest: If there is no such column, or the limits bound nothing.
        """
        if self.column not in columns:
            raise InvalidRequest(
                f"there is no reward column {brief(self.column)!r}; there are: "
                f"{', '.join(map(brief, columns)) or 'none'}",
                param="column",
            )
        return RewardThreshold(
            column=columns[self.column],
            at_least=self.at_least,
            at_most=self.at_most,
            name=self.name or self.column,
        )
