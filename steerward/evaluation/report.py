"""The report of an evaluation: everything that a reader needs to trust or repeat its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerward.evaluation.outcome import Benchmark, Number, Outcome
from steerward.evaluation.rows import DataFile
from steerward.evaluation.scorer import Steering
from steerward.protocol.scoring import ModelCard


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that has no scores, and why."""

    file: str
    row: int
    id: str | None
    subset: str
    code: str
    message: str

    def as_json(self) -> dict[str, Any]:
        """Return it for the report."""
        return {
            "file": self.file,
            "row": self.row,
            "id": self.id,
            "subset": self.subset,
            "code": self.code,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What came out, of what, by which rule."""

    benchmark: Benchmark
    outcome: Outcome
    card: ModelCard
    address: str | None
    """URL of the server that gave the scores; None in this process."""
    steering: Steering
    files: tuple[DataFile, ...]
    failures: tuple[Failure, ...]

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def is_complete(self) -> bool:
        """Whether the headline rests on every row and every part of the benchmark."""
        return not self.gaps

    @property
    def gaps(self) -> list[str]:
        """Why the headline is not the benchmark's number, if it is not."""
        found: list[str] = []
        if self.failures:
            found.append(f"{len(self.failures):,} of {self.rows:,} rows could not be scored")
        if self.outcome.missing:
            found.append(f"no scores for {', '.join(self.outcome.missing)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it; values are fractions."""
        rule, headline = self.benchmark.rule, self.outcome.headlines[0]
        return {
            "benchmark": self.benchmark.name,
            "rule": {"version": rule.version, "ties": rule.ties, "sources": list(rule.sources)},
            "is_complete": self.is_complete,
            "gaps": self.gaps,
            "headline": {"name": headline.name, "value": headline.value},
            "headlines": _by_name(self.outcome.headlines),
            "groups": {group.name: _by_name(group.numbers) for group in self.outcome.groups},
            "notes": list(self.outcome.notes),
            "model": {
                "id": self.card.id,
                "weight_version": self.card.weight_version,
                "architecture": self.card.architecture,
                "dtype": self.card.dtype,
                "device": self.card.device,
                "max_input_tokens": self.card.max_input_tokens,
                "server": self.address,
            },
            "measured": self.steering.measured,
            "weights": _plain(self.steering.weights),
            "direction": _plain(self.steering.direction),
            "files": [
                {"name": file.name, "sha256": file.sha256, "rows": file.rows} for file in self.files
            ],
            "rows": self.rows,
            "scored": self.rows - len(self.failures),
            "failed": len(self.failures),
            "failures": [failure.as_json() for failure in self.failures],
        }


def _by_name(numbers: Sequence[Number]) -> dict[str, dict[str, Any]]:
    return {
        number.name: {
            "value": number.value,
            "rows": number.rows,
            "failed": number.failed,
            "ties": number.ties,
        }
        for number in numbers
    }


def _plain(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else dict(values)
