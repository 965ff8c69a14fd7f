"""A reward model of several labels: how well does each of its outputs predict held-out labels?

    python -m benchmarks.multilabel [--rows FILE.jsonl.gz] [--out FILE.json]

Trains the sequence classifier of `steerward train multilabel` on the policy in the package, four
labels at once. Without a file, the rows are texts of our own, and the labels are what `pocket`
gives them: a small model taught by another one, which shows that all outputs learn, and says
nothing about people. Some of them are taken away at random, as labels are missing in real data.
With a file, the labels are its own. Figures are of rows whose prompts training does not see: mean
over seeds, with the lowest and the highest.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.dialogues import dialogues
from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import group_conversations
from steerward.training.align.multilabel.data import read_labelled
from steerward.training.align.multilabel.run import train_multilabel
from steerward.training.align.multilabel.settings import MultiLabelConfig
from steerward.training.statistics import spearman

_SCORED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained on what."""

    rows: str = ""
    """Labelled rows, JSON lines; default: texts of our own, labelled by the reward model."""
    objectives: str = "helpfulness,harmlessness,clarity,verbosity"
    reward_model: str = "pocket"
    start: str = "pocket-policy"
    answers: int = 40
    """To each of our own questions."""
    missing_share: float = 0.2
    """Of our own labels that are taken away."""
    epochs: int = 6
    learning_rate: float = 3e-4
    validation_share: float = 0.3
    seeds: int = 3


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return how well each label is predicted by each seed."""
    names = setting.objectives.split(",")
    rows = Path(setting.rows) if setting.rows else write_own_rows(setting, work / "rows.jsonl")
    reports = [
        train_multilabel(
            MultiLabelConfig(
                start=setting.start,
                data=[rows],
                out=work / f"seed-{seed}",
                objectives=names,
                balance_labels=True,
                epochs=setting.epochs,
                learning_rate=setting.learning_rate,
                validation_share=setting.validation_share,
                seed=seed,
            )
        )
        for seed in range(setting.seeds)
    ]
    return summarise(reports, lengths=_length_correlations(rows, names))


def write_own_rows(setting: Setting, path: Path) -> Path:
    """Write questions with answers of all qualities, labelled by the reward model."""
    names = setting.objectives.split(",")
    model = load_reward_model(setting.reward_model, device="cpu")
    places = [model.objectives.index(name) for name in names]
    draw = random.Random(0)
    lines: list[str] = []
    for prompt, answers in own_texts(setting.answers, draw).items():
        for begin in range(0, len(answers), _SCORED_AT_ONCE):
            some = answers[begin : begin + _SCORED_AT_ONCE]
            conversations = model.encode([{"role": "user", "content": prompt}], some)
            rewards_NK = model.score(group_conversations(conversations)).rewards_NK
            for answer, rewards_K in zip(some, rewards_NK[:, places].tolist(), strict=True):
                labels = {
                    name: None if draw.random() < setting.missing_share else reward
                    for name, reward in zip(names, rewards_K, strict=True)
                }
                row = {"prompt": prompt, "response": answer, "labels": labels}
                lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


def own_texts(answers: int, draw: random.Random) -> dict[str, list[str]]:
    """Return our questions with answers: good ones, parts of them, and mixtures with others."""
    items = dialogues()
    sentences = [part for item in items for part in item.candidates[0].split(". ")]
    found: dict[str, list[str]] = {}
    for item in items:
        assert isinstance(item.prompt, str)
        texts = list(item.candidates)
        own = item.candidates[0].split(". ")
        while len(texts) < answers:
            parts = draw.sample(own, draw.randint(0, len(own)))
            parts += draw.sample(sentences, draw.randint(0 if parts else 1, 3))
            text = ". ".join(part.rstrip(".") for part in parts) + "."
            texts.append(text * draw.choice((1, 1, 1, 2)))
        found[item.prompt] = texts[:answers]
    return found


def summarise(
    reports: Sequence[dict[str, Any]], *, lengths: dict[str, float | None]
) -> dict[str, Any]:
    """Return the figures of all seeds, and a table.

    Args:
        reports: Of the trainings.
        lengths: Rank correlation of each label with the length of the response.
    """
    rows: list[list[str]] = []
    for name in reports[0]["objectives"]:
        fits = [report["held_out"][name] for report in reports]
        rows.append(
            [
                name,
                " ".join(str(fit["count"]) for fit in fits),
                *(
                    _over_seeds([fit[key] for fit in fits])
                    for key in ("r2", "spearman", "mean_absolute_error")
                ),
                "" if lengths[name] is None else f"{lengths[name]:.2f}",
            ]
        )
    columns = [
        "label",
        "held out, by seed",
        "R2",
        "Spearman",
        "mean error",
        "Spearman, length alone",
    ]
    title = f"Held-out labels, {len(reports)} seeds: mean (lowest to highest)"
    kept = ("held_out", "calibration", "rows", "mean_r2", "steps")
    return {
        "seeds": [{key: report[key] for key in kept} for report in reports],
        "length_spearman": lengths,
        "tables": [table(title, columns, rows)],
    }


def _over_seeds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{sum(known) / len(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def _length_correlations(rows: Path, names: Sequence[str]) -> dict[str, float | None]:
    read = read_labelled([rows])
    found: dict[str, float | None] = {}
    for name in names:
        pairs = [
            (len(row.response), label)
            for row in read
            if (label := row.labels.get(name)) is not None
        ]
        found[name] = spearman(*zip(*pairs, strict=True)) if pairs else None
    return found


if __name__ == "__main__":
    main(Setting, run)
