"""The report as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_OURS, _THEIRS = "#1f6f8b", "#b8b8b8"


def plot_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a picture of a report: objectives, accuracies with intervals, sources."""
    panels = [name for name in ("objectives", "pairs", "sources") if _has(report, name)]
    figure, axes = plt.subplots(
        1, max(1, len(panels)), figsize=(6.2 * max(1, len(panels)), 5), squeeze=False
    )
    draw = {"objectives": _objectives, "pairs": _pairs, "sources": _sources}
    for axis, panel in zip(axes[0], panels, strict=False):
        draw[panel](axis, report)
    figure.suptitle(f"{report['model']} · split {report['split']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _has(report: Mapping[str, Any], panel: str) -> bool:
    return bool(report.get("pairs" if panel == "sources" else panel))


def _objectives(axis: Axes, report: Mapping[str, Any]) -> None:
    entries = {k: v for k, v in report["objectives"].items() if v["spearman"] is not None}
    names = sorted(entries, key=lambda name: entries[name]["spearman"])
    values = [entries[name]["spearman"] for name in names]
    axis.barh(names, values, color=_OURS)
    for y, (name, value) in enumerate(zip(names, values, strict=True)):
        axis.text(max(value, 0) + 0.01, y, f"{value:.2f} (n={entries[name]['rows']})", va="center")
    axis.set_xlim(0, 1.35)
    axis.set_xlabel("Spearman with the ratings")
    axis.set_title("objectives")


def _pairs(axis: Axes, report: Mapping[str, Any]) -> None:
    entries = report["pairs"]
    names = sorted(entries, key=lambda name: entries[name]["value"])
    _intervals(axis, names, [entries[name] for name in names], ours="score")
    axis.set_title("pair accuracy, all sources")


def _sources(axis: Axes, report: Mapping[str, Any]) -> None:
    entries = report["pairs"]["score"]["sources"]
    names = sorted(entries, key=lambda name: entries[name]["value"])
    labels = [f"{name} (n={entries[name]['pairs']})" for name in names]
    _intervals(axis, labels, [entries[name] for name in names], ours=None)
    lengths = report["pairs"]["longer wins"]["sources"]
    axis.scatter(
        [lengths[name]["value"] for name in names],
        range(len(names)),
        marker="|",
        s=120,
        color="black",
        label="longer wins",
        zorder=3,
    )
    axis.legend(loc="lower right")
    axis.set_title("pair accuracy by source")


def _intervals(axis: Axes, names: list[str], entries: list[Any], *, ours: str | None) -> None:
    values = [entry["value"] for entry in entries]
    spread = [
        [max(0.0, entry["value"] - entry["low"]) for entry in entries],
        [max(0.0, entry["high"] - entry["value"]) for entry in entries],
    ]
    colors = [_OURS if ours is None or name == ours else _THEIRS for name in names]
    axis.barh(names, values, xerr=spread, color=colors, ecolor="#444444", capsize=3)
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlim(0.3, 1.0)
    axis.set_xlabel("share of pairs ordered rightly (95 % interval)")
