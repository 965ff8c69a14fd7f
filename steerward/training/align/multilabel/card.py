"""The card of a multi-label reward model: every figure in it comes from its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, multi-objective, regression]
---
# {name}

A reward model with {count} outputs, one for each label, trained from `{start}` by regression on
{train:,} labelled responses ({left_out:,} rows were left out: too long, or without a label). An
output is in units of its label. Measured on {held_out:,} responses to prompts held out:

{table}

Mean and standard deviation are those of the model's own rewards, in `config.json` under
`calibration` too: subtract and divide to bring all rewards to one scale. Where R2 or the rank
correlation is missing, the label does not vary on the responses held out.

Serve it: `steerward serve --reward-model FOLDER`. It is a sequence classifier of transformers too,
which reads a conversation as the chat template writes it.
"""


def write_card(path: Path, report: Mapping[str, Any]) -> None:
    """Write the card that a report gives."""
    header = ["label", "responses", "R2", "Spearman", "mean error", "mean", "standard deviation"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name in report["objectives"]:
        fit, calibration = report["held_out"][name], report["calibration"][name]
        lines.append(
            [
                _cell(name),
                str(fit["count"]),
                *(_number(fit[key]) for key in ("r2", "spearman", "mean_absolute_error")),
                _number(calibration["mean"]),
                _number(calibration["std"]),
            ]
        )
    rows = report["rows"]
    text = _CARD.format(
        name=_cell(report["name"]),
        start=_cell(report["start"]),
        count=len(report["objectives"]),
        train=rows["train"],
        held_out=rows["held_out"],
        left_out=rows["left_out"],
        table="\n".join(f"| {' | '.join(line)} |" for line in lines),
    )
    path.write_text(text, encoding="utf-8")


def _cell(text: str) -> str:
    """Return a name that stays within its cell, and is no markup."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;").replace("`", "'")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
