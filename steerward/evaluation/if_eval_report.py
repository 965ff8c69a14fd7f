"""The report of an instruction-following evaluation: as JSON, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steerward.evaluation.bootstrap import Interval
from steerward.evaluation.rows import DataFile

RULE = "1"
"""Changes when the same responses would give other numbers."""
SOURCES = (
    "arXiv:2311.07911, section 2.2",
    "google-research: instruction_following_eval/evaluation_lib.py",
)
_COLUMNS = ("strict", "95 %", "loose", "95 %", "counted", "prompts")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How much is met, by one reading."""

    value: float
    """As a fraction, 1 for all."""
    interval: Interval
    """Of 95 %, by bootstrap over the prompts that hold what is counted."""
    met: int

    def as_json(self) -> dict[str, Any]:
        """Return it for the report."""
        low, high = self.interval.low, self.interval.high
        return {"value": self.value, "low": low, "high": high, "met": self.met}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is counted, strictly and loosely."""

    name: str
    strict: Accuracy
    loose: Accuracy
    counted: int
    """Prompts or instructions that could be met."""
    prompts: int
    """Prompts that they stand in."""

    def as_json(self) -> dict[str, Any]:
        """Return it for the report."""
        return {
            "strict": self.strict.as_json(),
            "loose": self.loose.as_json(),
            "counted": self.counted,
            "prompts": self.prompts,
        }


@dataclass(frozen=True, slots=True)
class InstructionReport:
    """What came out, of which files, by which rule."""

    files: tuple[DataFile, ...]
    """Of rows."""
    responses: DataFile
    blank_responses: int
    """Responses without text: they count, and meet nothing."""
    unused_responses: int
    """Responses to prompts that no row has; they count for nothing."""
    resamples: int
    seed: int
    prompt_level: Line
    """Prompts whose every instruction is met: the headline is the strict one."""
    instruction_level: Line
    families: tuple[Line, ...]
    kinds: tuple[Line, ...]

    @property
    def rows(self) -> int:
        """Rows in all files, a prompt each."""
        return sum(file.rows for file in self.files)

    @property
    def notes(self) -> list[str]:
        """What readers should know before they compare."""
        found = [
            "languages, sentences and capital words are told by own rules, not by langdetect and "
            "nltk: numbers of those kinds can differ from published ones by a little"
        ]
        if self.blank_responses:
            found.append(f"{self.blank_responses:,} responses are blank and meet nothing")
        if self.unused_responses:
            found.append(f"{self.unused_responses:,} responses are to prompts of no row: left out")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it; values are fractions."""
        return {
            "benchmark": "ifeval",
            "rule": {"version": RULE, "sources": list(SOURCES)},
            "headline": {"name": "prompt-level strict", "value": self.prompt_level.strict.value},
            "prompt_level": self.prompt_level.as_json(),
            "instruction_level": self.instruction_level.as_json(),
            "families": {line.name: line.as_json() for line in self.families},
            "kinds": {line.name: line.as_json() for line in self.kinds},
            "notes": self.notes,
            "bootstrap": {"resamples": self.resamples, "seed": self.seed, "share": 0.95},
            "files": [_file(file) for file in self.files],
            "responses": _file(self.responses),
            "rows": self.rows,
            "blank_responses": self.blank_responses,
            "unused_responses": self.unused_responses,
        }

    def as_text(self) -> str:
        """Return the report as aligned lines; values are percentages."""
        head, *facts = self._head()
        blocks = [[head, *facts]]
        for name, lines in self._parts():
            blocks.append(_aligned([(name, *_COLUMNS), *map(_cells, lines)]))
        blocks.append([f"note: {note}" for note in self.notes])
        return "\n\n".join("\n".join(block) for block in blocks)

    def as_markdown(self) -> str:
        """Return the report as Markdown; values are percentages."""
        head, *facts = self._head()
        blocks = [[f"## {head}"], [f"- {fact}" for fact in facts]]
        for name, lines in self._parts():
            rows = [f"| {' | '.join((name, *_COLUMNS))} |", "|---|" + "---:|" * len(_COLUMNS)]
            blocks.append([*rows, *(f"| {' | '.join(_cells(line))} |" for line in lines)])
        blocks.append([f"- note: {note}" for note in self.notes])
        return "\n\n".join("\n".join(block) for block in blocks)

    def _head(self) -> list[str]:
        return [
            f"Instruction following (IFEval), rule {RULE}",
            f"{self.rows:,} prompts, {self.instruction_level.counted:,} instructions; responses "
            f"of {self.responses.name}",
            f"95 % by bootstrap over prompts, {self.resamples:,} resamples, seed {self.seed}",
        ]

    def _parts(self) -> list[tuple[str, Sequence[Line]]]:
        levels = (self.prompt_level, self.instruction_level)
        return [("result", levels), ("family", self.families), ("kind", self.kinds)]


def _file(file: DataFile) -> dict[str, Any]:
    return {"name": file.name, "sha256": file.sha256, "rows": file.rows}


def _cells(line: Line) -> Sequence[str]:
    by_reading = [cell for one in (line.strict, line.loose) for cell in _percent(one)]
    return (line.name, *by_reading, f"{line.counted:,}", f"{line.prompts:,}")


def _percent(accuracy: Accuracy) -> tuple[str, str]:
    low, high = 100 * accuracy.interval.low, 100 * accuracy.interval.high
    return f"{100 * accuracy.value:.1f}", f"{low:.1f}-{high:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
