"""Tables of jobs, iterations, checkpoints and files, and how they spell numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from steerward.protocol.files import FileObject
from steerward.protocol.fine_tuning import IterationProgress, JobCheckpoint

# A terminal has so many rows only: the first iteration is the yardstick, the last ones are news.
_MOST_ITERATIONS = 12
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# Width from which a column of the history has room.
_WIDE, _MIDDLE = 90, 60
# Width of a number.
_NUMBER = 6


def plain(text: str) -> str:
    """Return a text of the server without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def number(value: float | None, *, sign: bool = False) -> str:
    """Return a number with three decimals, or a dash if it is not known."""
    if value is None:
        return "-"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def moment(seconds: int) -> str:
    """Return a time since 1970 as people here write it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def difference(value: float | None, first: float | None) -> str:
    """Return the change from a first value, or a dash if one is not known."""
    return number(None if value is None or first is None else value - first, sign=True)


def simple_table(*columns: str, rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of texts; columns that end with a colon are numbers, put to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column.removesuffix(":"), justify="right" if column.endswith(":") else "left"
        )
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def rewards_table(history: Sequence[IterationProgress]) -> Table | None:
    """Return the mean rewards of the newest iteration that has some, beside those of the first."""
    rewarded = [item for item in history if item.rewards]
    if not rewarded:
        return None
    first, newest = rewarded[0], rewarded[-1]
    rows = [
        (
            name,
            number(value),
            difference(value, first.rewards.get(name)),
            number(newest.selected_rewards.get(name)),
        )
        for name, value in newest.rewards.items()
    ]
    change = f"since {first.iteration}:"
    return simple_table(
        f"mean reward, iteration {newest.iteration}", "sampled:", change, "selected:", rows=rows
    )


def history_table(history: Sequence[IterationProgress], *, width: int) -> Table:
    """Return the iterations, a row each, with the change of the direction score since the first.

    Args:
        history: In order.
        width: Columns of the terminal; narrow ones get fewer columns of the table.
    """
    first = next(
        (item.direction_score for item in history if item.direction_score is not None), None
    )
    columns: list[tuple[str, Callable[[IterationProgress], str], int]] = [
        ("iteration:", lambda item: str(item.iteration), 0),
        ("sampled:", lambda item: f"{item.sampled:,}", _MIDDLE),
        ("accepted:", lambda item: f"{item.accepted:,}", _MIDDLE),
        ("loss:", lambda item: number(item.loss), _WIDE),
        ("KL:", lambda item: number(item.kl), _MIDDLE),
        ("direction score:", lambda item: number(item.direction_score), 0),
        ("change:", lambda item: difference(item.direction_score, first), 0),
        (
            "time:",
            lambda item: duration(sum(item.seconds.values())) if item.seconds else "-",
            _WIDE,
        ),
    ]
    fitting = [column for column in columns if width >= column[2]]
    rows = _shortened([[cell(item) for _, cell, _ in fitting] for item in history])
    return simple_table(*(name for name, _, _ in fitting), rows=rows)


def evaluations_table(history: Sequence[IterationProgress], *, width: int) -> Table:
    """Return the evaluations of held-out prompts, a row each, with the mean of each reward.

    Args:
        history: In order, of a method without iterations.
        width: Columns of the terminal; narrow ones get fewer rewards.
    """
    names = list(dict.fromkeys(name for item in history for name in item.rewards))
    left = width - len("step")
    shown: list[str] = []
    for name in names:
        left -= 2 + max(len(name), _NUMBER)
        if left < 0:
            break
        shown.append(name)
    rows = _shortened(
        [f"{item.iteration:,}", *(number(item.rewards.get(name)) for name in shown)]
        for item in history
    )
    return simple_table("step:", *(f"{plain(name)}:" for name in shown), rows=rows)


def _shortened(rows: Iterable[list[str]]) -> list[list[str]]:
    """Return the first and the last ones, with a gap between where there are too many."""
    found = list(rows)
    if len(found) <= _MOST_ITERATIONS:
        return found
    gap = ["..."] + [""] * (len(found[0]) - 1)
    return [found[0], gap, *found[-_MOST_ITERATIONS + 1 :]]


def checkpoints_table(checkpoints: Sequence[JobCheckpoint]) -> Table:
    """Return the checkpoints, a row each."""
    rows = [
        (
            str(checkpoint.step_number),
            checkpoint.weight_version,
            " ".join(f"{name}={number(value)}" for name, value in checkpoint.metrics.items()),
            checkpoint.fine_tuned_model_checkpoint,
        )
        for checkpoint in checkpoints
    ]
    return simple_table("step:", "weights", "metrics", "folder", rows=rows)


def files_table(files: Sequence[FileObject]) -> Table:
    """Return the files, a row each."""
    rows = [
        (
            file.id,
            file.filename,
            file.holds,
            f"{file.rows:,}",
            f"{file.bytes:,}",
            moment(file.created_at),
        )
        for file in files
    ]
    return simple_table("id", "name", "holds", "rows:", "bytes:", "created", rows=rows)


def settings_table(method: Mapping[str, Any]) -> Table:
    """Return the settings of a method that are set, a row each, nested names with dots."""
    return simple_table("setting", "value", rows=list(_flat(method, "")))


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)
