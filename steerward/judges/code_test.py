"""A judge of programs: the row's unit tests must pass (CGPO, section 4.8: the code judge)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.judges.program import program_of
from steerward.judges.sandbox import ISOLATIONS, Isolation, Limits, Outcome, run
from steerward.protocol.errors import InvalidRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests(SampleJudge):
    """Passes a completion whose Python program passes the unit tests of its row.

    The program runs in a sandbox; `steerward.judges.sandbox` says what that isolates, and what
    not. One that fails, takes too long or too much memory fails; where the sandbox itself cannot
    be started, the judge does.

    Args:
        column: Holds the tests: Python source that raises where a test fails, or a list of such.
        setup_column: Holds source that runs before the tests, such as imports.
        entry_point_column: Holds the name of a function, for tests that define `check(candidate)`
            as HumanEval's do.
        which: Which fenced block is the program, if there are several.
        limits: What a program may use.
        must_isolate: Without which no program is run: the judge fails. Of the rest it does its
            best, and logs once what could not be isolated. Fewer than by default, or none, let
            programs that nobody has read near the machine's files, network or processes.
        num_workers: Programs that run at once.
        name: Of the judge.
    """

    column: str = "unit_tests"
    setup_column: str | None = None
    entry_point_column: str | None = None
    which: Literal["first", "last"] = "last"
    limits: Limits = field(default_factory=Limits)
    must_isolate: tuple[Isolation, ...] = ("network", "files", "processes")
    num_workers: int = 4
    name: str = "code_tests"

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise InvalidRequest(
                f"num_workers is {self.num_workers}, and nothing would run; give at least 1"
            )

    def decide_all(self, samples: Sequence[Sample]) -> list[Verdict | None]:
        """Return a verdict for each sample; several programs run at once."""
        if not samples:
            return []
        with ThreadPoolExecutor(min(self.num_workers, len(samples))) as pool:
            return list(pool.map(self.decide, samples))

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where the tests are no text or the sandbox does not start."""
        given = sample.get(self.column)
        if given is None or given == "" or given == []:
            return None
        tests = self._tests(sample, given)
        if tests is None:
            return -1
        program = program_of(sample.completion, which=self.which)
        if program is None:
            return 0
        outcome = run(program, tests, limits=self.limits, must_isolate=self.must_isolate)
        return _verdict(outcome)

    def _tests(self, sample: Sample, given: Any) -> str | None:
        """Return the source of all tests; None if the row has something else there."""
        setup = sample.get(self.setup_column)
        entry_point = sample.get(self.entry_point_column)
        parts = [_source(part) for part in (setup, given) if part is not None]
        if entry_point is not None:
            is_name = isinstance(entry_point, str) and entry_point.isidentifier()
            parts.append(f"check({entry_point})" if is_name else None)
        return None if None in parts else "\n".join(cast("list[str]", parts))


def _source(given: Any) -> str | None:
    if isinstance(given, str):
        return given
    if not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        return None
    return "\n".join(cast("Sequence[str]", given))


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.status == "not_started":
        _tell_reason(outcome.output.strip().rpartition("\n")[2])
        return -1
    _tell_missing(ISOLATIONS - outcome.isolation)
    return 1 if outcome.status == "passed" else 0


@functools.cache
def _tell_missing(missing: frozenset[str]) -> None:
    """Log once what could not be isolated."""
    if missing:
        logger.warning(
            "programs of completions run without isolation of %s; run as root, or where user "
            "namespaces are allowed, or name it in must_isolate to run none",
            ", ".join(sorted(missing)),
        )


@functools.lru_cache(maxsize=16)
def _tell_reason(reason: str) -> None:
    """Log once why no program was run."""
    logger.warning(
        "programs of completions are not run: %s; run as root, or where user namespaces are "
        "allowed, or take what is missing out of must_isolate, if the machine may be lost",
        reason or "the sandbox did not start",
    )
