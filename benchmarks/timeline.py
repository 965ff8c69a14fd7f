"""Where the time of one batch goes, as a picture.

    python -m benchmarks.timeline [--checkpoint NAME] [--device cuda] [--picture FILE.png]

One batch in torch's profiler, from texts to the bytes of the answer: the stages in turn, the layers
of the backbone, and within them linear maps, attention and norms. Attention is that of the layers
without their linear maps; what is left of the layers, activations and sums, has no name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.stages import OPERATIONS, STAGES, Span, record
from benchmarks.workload import groups_of_8, write_checkpoint
from steerward.models.checkpoint import load_reward_model

_COLOURS = {
    "tokenise": "#b07aa1",
    "pack": "#9c755f",
    "layers": "#bab0ac",
    "heads and gate": "#e15759",
    "answer": "#59a14f",
    "linear": "#4e79a7",
    "attention": "#f28e2b",
    "norm": "#76b7b2",
    "rest of the layers": "#d7d7d7",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is recorded."""

    checkpoint: str = ""
    """A reward model with a gate; empty for one with random weights."""
    device: str = "cpu"
    dtype: str = "float32"
    groups: int = 2
    """Prompts with 8 candidates each."""
    layers: int = 8
    width: int = 512
    picture: str = ""
    """File to draw into; empty for the one that the documentation shows."""


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the spans of one batch and the share of each stage, and draw the picture."""
    if not setting.checkpoint:
        write_checkpoint(folder, layers=setting.layers, width=setting.width)
    source = setting.checkpoint or str(folder)
    model = load_reward_model(source, device=setting.device, dtype=setting.dtype)
    items = groups_of_8(setting.groups)(0)
    spans = record(model, items)
    shares = shares_ms(spans)
    total = sum(shares[stage] for stage in STAGES)
    rows = [
        [name if name in STAGES else f"  {name}", f"{ms:.2f}", f"{ms / total:.1%}"]
        for name, ms in shares.items()
    ]
    candidates = sum(len(item.candidates) for item in items)
    title = f"one batch of {candidates} candidates behind {len(items)} prompts, {model.device}"
    path = setting.picture or f"docs/images/timeline-{model.device.type}.png"
    draw(spans, shares, title=f"{title}: {total:.0f} ms", path=Path(path))
    return {"milliseconds": shares, "tables": [table(title, ["stage", "ms", "share"], rows)]}


def shares_ms(spans: Sequence[Span]) -> dict[str, float]:
    """Return the milliseconds of each stage, those of the layers by operation below them."""
    by_name = dict.fromkeys((*STAGES, *OPERATIONS), 0.0)
    for span in spans:
        if span.name in by_name:
            by_name[span.name] += span.length_ms
    linears = [span for span in spans if span.name == "linear"]
    for outer in [span for span in spans if span.name == "attention"]:
        by_name["attention"] -= sum(
            span.length_ms
            for span in linears
            if outer.start_ms <= span.start_ms and span.end_ms <= outer.end_ms
        )
    shares: dict[str, float] = {}
    for stage in STAGES:
        shares[stage] = by_name[stage]
        if stage == "layers":
            shares |= {name: by_name[name] for name in OPERATIONS}
            shares["rest of the layers"] = by_name[stage] - sum(by_name[o] for o in OPERATIONS)
    return shares


def draw(spans: Sequence[Span], shares: Mapping[str, float], *, title: str, path: Path) -> None:
    """Draw stages, layers and operations over time, and the share of each in the legend."""
    from matplotlib.figure import Figure

    total = sum(shares[stage] for stage in STAGES)
    figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for span in spans:
        _bar(axes, span, shown=span.length_ms > 0.03 * total)
    for name, ms in shares.items():
        place = name if name in STAGES else f"    {name}"
        axes.barh(0, 0, color=_COLOURS[name], label=f"{place}  {ms:.1f} ms, {ms / total:.1%}")
    axes.set_yticks([2, 1, 0], ["stages", "layers", "operations"])
    axes.set_ylim(-0.6, 2.6)
    axes.set_xlim(0, max(span.end_ms for span in spans))
    axes.set_xlabel("milliseconds")
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bar(axes: Any, span: Span, *, shown: bool) -> None:
    is_layer = span.name.startswith("layer ")
    row = 2 if span.name in STAGES else 1 if is_layer else 0
    label = span.name.removeprefix("layer ")
    colour = "#dfe5ec" if is_layer else _COLOURS[span.name]
    # Linear maps lie over the attention that holds them.
    order = 3 if span.name == "linear" else 2
    axes.barh(
        row,
        span.length_ms,
        left=span.start_ms,
        height=0.7,
        color=colour,
        edgecolor="white",
        linewidth=0.3 if row == 0 else 0.8,
        zorder=order,
    )
    if shown and row:
        middle = (span.start_ms + span.end_ms) / 2
        axes.text(middle, row, label, ha="center", va="center", fontsize=9, zorder=4)


if __name__ == "__main__":
    main(Setting, run)
