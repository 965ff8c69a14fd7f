"""A report for people: aligned text for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from steerward.evaluation.outcome import Number
from steerward.evaluation.report import Report

_COLUMNS = ("value", "rows", "failed", "ties")
_Row = Sequence[str]


def as_text(report: Report) -> str:
    """Return the report as aligned lines; values are percentages."""
    blocks = [_head(report)]
    for name, numbers in _parts(report):
        rows = [(name, *_COLUMNS), *(_cells(report, number) for number in numbers)]
        blocks.append(_aligned(rows))
    return "\n\n".join("\n".join(block) for block in [*blocks, _tail(report)] if block)


def as_markdown(report: Report) -> str:
    """Return the report as Markdown; values are percentages."""
    head, *facts = _head(report)
    blocks = [[f"## {head}"], [f"- {fact}" for fact in facts]]
    for name, numbers in _parts(report):
        lines = [f"| {' | '.join((name, *_COLUMNS))} |", "|---|" + "---:|" * len(_COLUMNS)]
        lines += [
            f"| {' | '.join(_escaped(cell) for cell in _cells(report, number))} |"
            for number in numbers
        ]
        blocks.append(lines)
    blocks.append([f"- {line}" for line in _tail(report)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _parts(report: Report) -> list[tuple[str, Sequence[Number]]]:
    groups = [(group.name, group.numbers) for group in report.outcome.groups]
    return [("result", report.outcome.headlines), *groups]


def _head(report: Report) -> list[str]:
    card, failed = report.card, len(report.failures)
    where = f" at {report.address}" if report.address else ""
    lines = [
        f"{report.benchmark.title}, rule {report.benchmark.rule.version}",
        f"{card.id}, weights {card.weight_version}, {card.dtype} on {card.device}{where}",
        f"measured by {report.steering.measured}; equal scores: {report.benchmark.rule.ties}",
        f"{report.rows:,} rows, {report.rows - failed:,} scored, {failed:,} failed",
    ]
    if not report.is_complete:
        lines.append(f"INCOMPLETE: {'; '.join(report.gaps)}")
    return lines


def _tail(report: Report) -> list[str]:
    lines = [f"note: {note}" for note in report.outcome.notes]
    for failure in report.failures:
        name = "" if failure.id is None else f" (id {failure.id})"
        place = f"{failure.file}, row {failure.row}{name}, {failure.subset}"
        lines.append(f"failed: {place}: {failure.code}: {failure.message}")
    return lines


def _cells(report: Report, number: Number) -> _Row:
    value = "-" if number.value is None else f"{100 * number.value:.1f}"
    if not report.is_complete and number in report.outcome.headlines:
        value += " (incomplete)"
    return (number.name, value, f"{number.rows:,}", f"{number.failed:,}", f"{number.ties:,}")


def _aligned(rows: Sequence[_Row]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
