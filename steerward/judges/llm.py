"""A judge that asks a language model, and compares the probabilities of its two labels.

CGPO, arXiv:2409.20370: the label of higher probability decides. No sampled text is parsed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.judges.labels import LabelProbabilities
from steerward.judges.templates import Template
from steerward.protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelJudge(SampleJudge):
    """Passes a completion if a model prefers the label that says so.

    Args:
        name: Of the judge.
        template: The question.
        label_probabilities: Asks the model.
        threshold: Share of the passing label, of both together, from which a completion passes;
            one half is the likelier label.
        least_mass: Probability of both labels together below which the model did not answer the
            question, and the judge failed. The default is ours.
        gold_column: Holds the gold answer; a row without one has that of `gold_completions`, if
            given. A template with a place for it does not apply to rows without any.
        applies_column: Holds whether the judge applies to the row; None: it does to all.

    Raises:
        InvalidRequest: If the threshold or the mass is not within 0 and 1.
    """

    name: str
    template: Template
    label_probabilities: LabelProbabilities
    threshold: float = 0.5
    least_mass: float = 0.01
    gold_column: str = "answer"
    applies_column: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0 or not 0.0 <= self.least_mass < 1.0:
            raise InvalidRequest(
                f"the threshold is {self.threshold} and the least mass {self.least_mass}; both "
                "are shares: give less than 1, and a threshold of more than 0"
            )

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict for one sample."""
        return self.decide_all([sample])[0]

    def decide_all(self, samples: Sequence[Sample]) -> list[Verdict | None]:
        """Return a verdict for each sample; the model is asked once, for all of them.

        Raises:
            InvalidRequest: If the model was not told of as many as it was asked about.
        """
        asked = [i for i, sample in enumerate(samples) if self._applies(sample)]
        labels = (self.template.passing, self.template.failing)
        conversations = [self._conversation(samples[i]) for i in asked]
        found = self.label_probabilities(conversations, labels) if asked else []
        if len(found) != len(asked):
            raise InvalidRequest(
                f"{len(found)} label probabilities for {len(asked)} conversations; give one each"
            )
        verdicts: list[Verdict | None] = [None] * len(samples)
        for i, probabilities in zip(asked, found, strict=True):
            verdicts[i] = self._verdict(probabilities)
        return verdicts

    def _applies(self, sample: Sample) -> bool:
        if self.applies_column is not None and not sample.get(self.applies_column):
            return False
        return not self.template.needs_gold or self._gold(sample) is not None

    def _gold(self, sample: Sample) -> str | None:
        given = sample.get(self.gold_column)
        if isinstance(given, list | tuple):
            given = " / ".join(map(str, given)) or None
        return sample.gold_completion if given is None else str(given)

    def _conversation(self, sample: Sample) -> list[dict[str, str]]:
        gold = self._gold(sample) if self.template.needs_gold else None
        return self.template.conversation(
            prompt=sample.prompt_text, completion=sample.completion, gold=gold
        )

    def _verdict(self, probabilities: tuple[float, ...] | None) -> Verdict:
        if probabilities is None:
            return -1
        passing, failing = probabilities
        mass = passing + failing
        if not math.isfinite(mass) or mass <= 0.0 or mass < self.least_mass:
            return -1
        return 1 if passing / mass >= self.threshold else 0
