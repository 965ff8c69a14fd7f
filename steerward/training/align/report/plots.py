"""Pictures of a report, each a string of SVG. Free of torch."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from steerward.training.align.report.hypervolume import non_dominated
from steerward.training.align.report.numbers import Interval

_COLOURS = ("#1f6f8b", "#c8553d", "#5b8c5a", "#8d6a9f", "#d4a017", "#6b6b6b", "#3d5a98", "#b04a7a")
_MARKERS = "osD^vPX*"
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's means over its steps."""

    label: str
    steps: Sequence[int]
    intervals: Sequence[Interval]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """Where a run ended, in two objectives."""

    method: str
    name: str
    x: Interval
    y: Interval


def draw_curves(curves: Sequence[Curve], *, label: str) -> str:
    """Return means over steps with their intervals.

    Args:
        curves: Of the runs.
        label: Of the axis.
    """
    with _drawing() as (figure, axes):
        for curve, color in zip(curves, itertools.cycle(_COLOURS), strict=False):
            means = [one.mean for one in curve.intervals]
            low, high = ([getattr(one, end) for one in curve.intervals] for end in ("low", "high"))
            axes.plot(curve.steps, means, color=color, label=_plain(curve.label), marker=".")
            axes.fill_between(curve.steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(_plain(label))
        return _finish(figure, axes)


def draw_front(
    points: Sequence[FrontPoint], start: tuple[Interval, Interval], *, labels: tuple[str, str]
) -> str:
    """Return where runs ended, with a line through those of each method that none other beats.

    Args:
        points: Of the runs.
        start: Of the start policy.
        labels: Of the axes.
    """
    methods: Mapping[str, list[FrontPoint]] = {}
    for point in points:
        methods.setdefault(point.method, []).append(point)
    with _drawing() as (figure, axes):
        styles = zip(itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), strict=False)
        for (method, found), (color, marker) in zip(methods.items(), styles, strict=False):
            _scatter(
                axes,
                [(one.x, one.y) for one in found],
                color=color,
                marker=marker,
                label=_plain(method),
            )
            for one in found:
                if len(found) > 1 or one.name != method:
                    _annotate(axes, one, color)
            kept = non_dominated([(one.x.mean, one.y.mean) for one in found])
            line = sorted((found[i].x.mean, found[i].y.mean) for i in kept)
            axes.plot([x for x, _ in line], [y for _, y in line], color=color, linewidth=0.9)
        _scatter(axes, [start], color="black", marker="+", label="start")
        axes.set_xlabel(f"{_plain(labels[0])} (mean reward)")
        axes.set_ylabel(f"{_plain(labels[1])} (mean reward)")
        return _finish(figure, axes)


def _scatter(axes: Any, points: Sequence[tuple[Interval, Interval]], **style: str) -> None:
    x, y = ([point[i] for point in points] for i in (0, 1))
    axes.errorbar(
        [one.mean for one in x],
        [one.mean for one in y],
        xerr=_ends(x),
        yerr=_ends(y),
        linestyle="none",
        elinewidth=0.6,
        **style,
    )


def _ends(intervals: Sequence[Interval]) -> list[list[float]]:
    # Rounding may put a mean next to an end of its own interval on the wrong side.
    return [
        [max(0.0, one.mean - one.low) for one in intervals],
        [max(0.0, one.high - one.mean) for one in intervals],
    ]


def _annotate(axes: Any, point: FrontPoint, color: str) -> None:
    place = (point.x.mean, point.y.mean)
    axes.annotate(
        _plain(point.name),
        place,
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=7,
        color=color,
    )


@contextmanager
def _drawing() -> Iterator[tuple[Any, Any]]:
    # Heavy, and only for this.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same report twice is the same file.
    with rc_context({"svg.hashsalt": "steerward"}), warnings.catch_warnings():
        # A name may be in a script that the font lacks; the tables tell it.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        yield figure, figure.subplots()


def _finish(figure: Any, axes: Any) -> str:
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _plain(text: str) -> str:
    """Return a name as matplotlib shows it letter by letter.

    Dollars would begin a formula, and a legend leaves out what begins with an underscore.
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    if len(shown) > _LONGEST_NAME:
        shown = shown[: _LONGEST_NAME - 1] + "…"
    shown = shown.replace("$", "\\$")
    return f" {shown}" if shown.startswith("_") else shown
