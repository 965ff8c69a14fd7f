"""Instruction-following accuracy as IFEval takes it: by prompt and by instruction, two readings.

IFEval (Zhou et al., arXiv:2311.07911), section 2.2: strict accuracy looks at the response as it
is; loose accuracy asks whether one of eight variants of it meets the instruction. A prompt is
followed if its every instruction is met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.evaluation.bootstrap import share_interval
from steerward.evaluation.if_eval_report import Accuracy, InstructionReport, Line
from steerward.evaluation.if_eval_rows import InstructedRow, read_instructed_rows, read_responses
from steerward.instructions import KINDS
from steerward.protocol.errors import DatasetRefused, InvalidRequest

_RESAMPLES = 1000
"""Resamples of the bootstrap. Ours: the paper gives no intervals."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """The instructions of a prompt, and which of them its response meets."""

    kinds: tuple[str, ...]
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    resamples: int
    seed: int


def evaluate_instructions(
    rows_files: Sequence[Path],
    responses_file: Path,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> InstructionReport:
    """Return how well responses follow the instructions of their prompts.

    Args:
        rows_files: Files, or folders of them, with the published columns ``key``, ``prompt``,
            ``instruction_id_list`` and ``kwargs``.
        responses_file: Rows with ``prompt`` and ``response``; the prompts are joined to the rows'
            by their exact text.
        resamples: Resamples of the bootstrap; more make the ends of intervals steadier.
        seed: Of the bootstrap.

    Raises:
        DatasetRefused: If a file breaks its format, a row has an unknown or wrong instruction, a
            prompt is there twice, or a row has no response. Nothing is left out of the count.
        InvalidRequest: If `resamples` is not positive.
    """
    if resamples < 1:
        raise InvalidRequest(f"{resamples} resamples; ask for at least 1")
    rows, files = read_instructed_rows(rows_files)
    responses, responses_data = read_responses(responses_file)
    _refuse_missing(rows, responses, responses_file.name)
    checked = [_check(row, responses[row.prompt]) for row in rows]
    bootstrap = _Bootstrap(resamples, seed)
    return InstructionReport(
        files=files,
        responses=responses_data,
        blank_responses=sum(not responses[row.prompt].strip() for row in rows),
        unused_responses=len(responses) - len(rows),
        resamples=resamples,
        seed=seed,
        prompt_level=_prompt_line(checked, bootstrap),
        instruction_level=_line("instruction", checked, bootstrap, counts=lambda _: True),
        families=_lines(checked, bootstrap, name_of=lambda kind: KINDS[kind].family),
        kinds=_lines(checked, bootstrap, name_of=lambda kind: kind),
    )


def _refuse_missing(rows: Sequence[InstructedRow], responses: Mapping[str, str], name: str) -> None:
    missing = [row.place for row in rows if row.prompt not in responses]
    if missing:
        raise DatasetRefused(
            f"{name} has no response to the prompts of {len(missing):,} of {len(rows):,} rows, the "
            f"first of {missing[0]}; add them, or leave their rows out"
        )


def _check(row: InstructedRow, response: str) -> _Checked:
    return _Checked(
        kinds=tuple(instruction.kind for instruction in row.instructions),
        strict=tuple(instruction.is_met(response) for instruction in row.instructions),
        loose=tuple(instruction.is_met_loosely(response) for instruction in row.instructions),
    )


def _prompt_line(checked: Sequence[_Checked], bootstrap: _Bootstrap) -> Line:
    return Line(
        "prompt",
        _accuracy([(int(all(one.strict)), 1) for one in checked], bootstrap),
        _accuracy([(int(all(one.loose)), 1) for one in checked], bootstrap),
        counted=len(checked),
        prompts=len(checked),
    )


def _lines(
    checked: Sequence[_Checked], bootstrap: _Bootstrap, *, name_of: Callable[[str], str]
) -> tuple[Line, ...]:
    """Return a line for each name that kinds have, sorted by name."""
    names = sorted({name_of(kind) for one in checked for kind in one.kinds})
    return tuple(
        _line(name, checked, bootstrap, counts=lambda kind, name=name: name_of(kind) == name)
        for name in names
    )


def _line(
    name: str,
    checked: Sequence[_Checked],
    bootstrap: _Bootstrap,
    *,
    counts: Callable[[str], bool],
) -> Line:
    """Return the line of the kinds that count; prompts without any are no matter to it."""
    strict: list[tuple[int, int]] = []
    loose: list[tuple[int, int]] = []
    for one in checked:
        places = [place for place, kind in enumerate(one.kinds) if counts(kind)]
        if places:
            strict.append((sum(one.strict[place] for place in places), len(places)))
            loose.append((sum(one.loose[place] for place in places), len(places)))
    return Line(
        name,
        _accuracy(strict, bootstrap),
        _accuracy(loose, bootstrap),
        counted=sum(parts for _, parts in strict),
        prompts=len(strict),
    )


def _accuracy(groups: Sequence[tuple[int, int]], bootstrap: _Bootstrap) -> Accuracy:
    met = sum(part for part, _ in groups)
    interval = share_interval(groups, resamples=bootstrap.resamples, seed=bootstrap.seed)
    return Accuracy(met / sum(parts for _, parts in groups), interval, met)
