"""A mixture of judges: a completion is satisfied only if every judge that applies to it passes.

CGPO, arXiv:2409.20370, section 4.1: the set of allowed completions is the intersection of those
of the judges, so one failing judge is enough for a violation. (The algorithm of the paper prints
a sign that reads as "or" there; the text says "and".)

Two decisions are ours. A judge that itself failed (-1) counts as a violation, for a completion
that nobody has judged must not be reinforced; and it is counted apart, since a judge that is down
would otherwise look like a policy that is bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerward.judges.judge import Judge, JudgeFailed, Row, Turns, Verdict, checked_name
from steerward.protocol.errors import InvalidRequest, brief

_VERDICTS = (1, 0, -1, None)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a mixture found of each completion."""

    satisfied: list[bool]
    """Whether every judge that applies passes; True where none applies."""
    verdicts: dict[str, list[Verdict | None]]
    """Of each judge by its name."""
    failure_rates: dict[str, float]
    """Share of -1 among the completions to which a judge applies; 0 where it applies to none."""

    @property
    def violation_rate(self) -> float:
        """Share of completions that violate a rule; 0 of no completions."""
        return self.satisfied.count(False) / max(len(self.satisfied), 1)

    @property
    def num_applicable(self) -> dict[str, int]:
        """Completions to which each judge applies: 0 everywhere may be a misspelt column."""
        return {
            name: len(verdicts) - verdicts.count(None) for name, verdicts in self.verdicts.items()
        }


class Mixture:
    """The judges of one task.

    Args:
        judges: With distinct names of letters, digits, `_`, `.` and `-`; none at all leaves every
            completion satisfied.
        max_failure_rate: Largest share of -1 that a judge may give in one call, of the completions
            to which it applies. The default of a tenth is ours; 1 allows all.

    Raises:
        InvalidRequest: If two judges have one name, a name has other signs, or the rate is not
            within 0 and 1.
    """

    def __init__(self, judges: Sequence[Judge], *, max_failure_rate: float = 0.1) -> None:
        counts = Counter(judge.name for judge in judges)
        for name, count in counts.items():
            _check_name(name)
            if count > 1:
                raise InvalidRequest(
                    f"{count} judges are called {brief(name)!r}, and verdicts are told by name; "
                    "give each its own name",
                    param="judges",
                )
        if not 0.0 <= max_failure_rate <= 1.0:
            raise InvalidRequest(
                f"max_failure_rate is {max_failure_rate}; it is a share: give 0 to 1",
                param="max_failure_rate",
            )
        self._judges = tuple(judges)
        self._max_failure_rate = max_failure_rate

    @property
    def names(self) -> list[str]:
        """Of the judges, in order."""
        return [judge.name for judge in self._judges]

    def judge(
        self,
        prompts: Sequence[Turns],
        completions: Sequence[Turns],
        gold_completions: Sequence[Turns] | None = None,
        shuffle_order: bool = True,
        *,
        rows: Sequence[Row] | None = None,
    ) -> Judged:
        """Return what every judge says; `Judge.judge` says what the arguments are.

        Raises:
            InvalidRequest: If the arguments do not fit together.
            JudgeFailed: If a judge failed on more than `max_failure_rate` of the completions to
                which it applies, or gave what is no verdict.
        """
        verdicts: dict[str, list[Verdict | None]] = {}
        for judge in self._judges:
            found = judge.judge(prompts, completions, gold_completions, shuffle_order, rows=rows)
            _check_verdicts(judge.name, found, num_completions=len(completions))
            verdicts[judge.name] = found
        rates = {name: _failure_rate(found) for name, found in verdicts.items()}
        self._check_rates(rates, verdicts)
        satisfied = [
            all(found[i] in (1, None) for found in verdicts.values())
            for i in range(len(completions))
        ]
        return Judged(satisfied=satisfied, verdicts=verdicts, failure_rates=rates)

    def _check_rates(
        self, rates: Mapping[str, float], verdicts: Mapping[str, Sequence[Verdict | None]]
    ) -> None:
        for name, rate in rates.items():
            if rate > self._max_failure_rate:
                found = verdicts[name]
                raise JudgeFailed(
                    f"the judge {brief(name)!r} could not judge {found.count(-1)} of the "
                    f"{len(found) - found.count(None)} completions to which it applies, "
                    f"{rate:.0%}; the limit max_failure_rate is {self._max_failure_rate:.0%}. "
                    "Mend what it needs (its server, its sandbox, its column), or raise the limit"
                )


def _check_name(name: str) -> None:
    try:
        checked_name(name)
    except ValueError as error:
        raise InvalidRequest(str(error), param="judges") from None


def _failure_rate(verdicts: Sequence[Verdict | None]) -> float:
    num_applicable = len(verdicts) - verdicts.count(None)
    return verdicts.count(-1) / num_applicable if num_applicable else 0.0


def _check_verdicts(name: str, verdicts: Sequence[Verdict | None], *, num_completions: int) -> None:
    if len(verdicts) != num_completions:
        raise JudgeFailed(
            f"the judge {brief(name)!r} gave {len(verdicts)} verdicts for {num_completions} "
            "completions; it must give one for each"
        )
    for verdict in verdicts:
        if verdict not in _VERDICTS:
            raise JudgeFailed(
                f"the judge {brief(name)!r} gave {brief(repr(verdict))}, which is no verdict; it "
                "must give 1, 0, -1 or None"
            )
