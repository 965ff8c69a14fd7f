"""The model card of pocket: every figure in it comes from the reports of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.pocket.steps import HELD_OUT_SHARE, Run, source_of
from steerward.training.evaluate import read_report

Report = Mapping[str, Any]

SOURCES = Path(__file__).with_name("sources.json")

_GOALS = {"harmlessness": 0.75, "compliance": 0.82, "helpfulness": 0.55, "truthfulness": 0.45}
_GOAL_ACCURACY, _GOAL_MARGIN, _GOAL_LENGTH = 0.70, 0.03, 0.2

_NAMES = {"score": "gated score"}

_HEADER = """---
license: apache-2.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
library_name: steerward
tags: [reward-model, multi-objective, gating]
---
# pocket

A small multi-objective reward model with a gate, in the manner of ArmoRM (arXiv:2406.12845):
{parameters:.1f} million parameters, {objectives} objectives, conversations of up to {positions:,}
tokens, English. It ships with Steerward so that scoring works the minute it is installed, and so
that everything around it can be tried on a laptop. It is a small model trained on public data:
below is what it can do, and what it cannot.

Figures are on the test split, whose prompts occur nowhere in training (weight version
`{weight_version}`); the exception is `lamp`, which has one prompt for all its texts, so that there
only the texts are new. Intervals are 95 %, by resampling prompts; with a handful of prompts they
mean little.
"""

_LIMITS = """
## Limits

- Of {accuracy:.0%} right on pairs, chance is 50 % and the longer answer alone gives {longer:.0%}.
  Use it to try, to test and to teach; for decisions about models load a large checkpoint.
- It knows little about the world. Truthfulness is learnt mostly from short answers to common
  misconceptions; a confident falsehood elsewhere often gets a high reward.
- Short everyday questions are rare in its data: a polite refusal may outscore a short, useful
  answer to one of them ("How do I boil an egg?").
- Its test split has new prompts from the sources it was trained on. Expect less on your own data.
- Scores compare answers to one prompt. They are not calibrated across prompts.
- `verbosity` is no human label: it is the logarithm of the response's length in characters.
- Most conversations in the data have fewer than 500 tokens, the longest of training 1,675; longer
  ones are known only by moving short ones to later positions. Over {positions:,} tokens it refuses.
- The harmlessness labels come from red-team prompts in English. It is no content filter.
- Several sources were rated by GPT-3.5 and GPT-4, whose tastes it has learnt too.
"""


def write_card(whole: Run, partial: Run | None) -> None:
    """Write card, report and plot into the checkpoint of the whole run.

    Args:
        whole: Run on all sources.
        partial: Run with sources left out; None if there was none.
    """
    report = read_report(whole.report / "report.json")
    heads = json.loads((whole.work / "heads" / "heads.json").read_text())
    gate = json.loads((whole.work / "gate" / "gate.json").read_text())
    parts = [
        _header(report, heads),
        _goals(report),
        _objectives(report, heads, gate),
        _pairs(report),
        _unseen(partial),
        _length(report, gate),
        _limits(report),
        _training(whole),
        _data(whole),
    ]
    folder = whole.checkpoint
    (folder / "README.md").write_text("".join(parts), encoding="utf-8")
    for name in ("report.json", "report.png"):
        shutil.copyfile(whole.report / name, folder / name)
    if partial is not None:
        shutil.copyfile(partial.report / "report.json", folder / "report-unseen.json")


def _header(report: Report, heads: Report) -> str:
    return _HEADER.format(
        parameters=report["parameters"] / 1e6,
        objectives=len(heads["objectives"]),
        positions=report["max_input_tokens"],
        weight_version=report["weight_version"],
    )


def _goals(report: Report) -> str:
    """Return what was aimed at, and what came out."""
    pairs, length = report["pairs"], report["length"]
    margin = pairs["one global weighting"]["score_minus_this"]
    rows = [
        _goal("pair accuracy, gated score", pairs["score"]["value"], _GOAL_ACCURACY),
        _goal("... above one global weighting", margin["value"], _GOAL_MARGIN),
        *(
            _goal(f"Spearman, {name}", report["objectives"].get(name, {}).get("spearman"), goal)
            for name, goal in _GOALS.items()
        ),
    ]
    correlation = length["spearman_with_transform"]
    verdict = "met" if abs(correlation) <= _GOAL_LENGTH else "missed"
    rows.append(
        [
            "Spearman of score and length",
            f"{correlation:+.3f}",
            f"within +-{_GOAL_LENGTH}",
            verdict,
        ]
    )
    text = "\n## Goals\n\n" + _table(["quantity", "value", "goal", ""], rows)
    if any(row[-1].startswith("missed") for row in rows):
        text += "\nWhat is missed is probably due to three things: taking length out of the score"
        text += f" (without it {length['accuracy_without_transform']:.3f} of the pairs are right),"
        text += f" {HELD_OUT_SHARE:.0%} of the training prompts kept from the backbone so that what"
        text += " is chosen on them is chosen fairly, and a small encoder read as a decoder, which"
        text += " knows little of the world.\n"
    return text


def _goal(name: str, value: float | None, goal: float) -> list[str]:
    if value is None:
        return [name, "none", f"at least {goal}", "missed: the head was dropped"]
    return [name, f"{value:.3f}", f"at least {goal}", "met" if value >= goal else "missed"]


def _objectives(report: Report, heads: Report, gate: Report) -> str:
    reference, penalties = gate["reference"], gate["transform"]["penalties"]
    rows: list[list[str]] = []
    for name in heads["objectives"]:
        entry = report["objectives"][name]
        rows.append(
            [
                f"`{name}`",
                _two_digits(entry["spearman"]),
                _two_digits(entry["spearman_within_sources"]),
                _two_digits(entry["spearman_of_source_means"]),
                _two_digits(entry["pearson"]),
                f"{entry['mse']:.3f} / {entry['label_variance']:.3f}",
                str(entry["rows"]),
                f"{reference[name]['mean']:.2f} +- {reference[name]['std']:.2f}",
                f"{penalties[name]:g}",
                heads["descriptions"][name],
            ]
        )
    columns = [
        "objective", "Spearman", "within sources", "sources' means alone", "Pearson",
        "MSE / label variance", "test rows", "reference mean +- std", "verbosity penalty",
        "labels (range that maps to 0..1)",
    ]  # fmt: skip
    text = "\n## Objectives\n\nRewards are in the unit of the labels, 0 at the mean of"
    text += " the reference (all training responses); `ratings` adds the mean back. Sources"
    text += " rate on levels of their own:"
    text += " knowing the source alone would give the Spearman of the fourth column, and nothing"
    text += " within sources. Ratings made the heads; pairs of a category shaped the backbone.\n\n"
    text += _table(columns, rows)
    if heads["dropped"]:
        dropped = ", ".join(
            f"{name} ({entry['spearman']:.2f})" for name, entry in heads["dropped"].items()
        )
        limit = heads["config"]["min_spearman"]
        text += "\nDropped, with a Spearman on held-out training prompts below"
        text += f" {limit}: {dropped}.\n"
    return text


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pairs(report: Report) -> str:
    pairs = report["pairs"]
    pooled = [
        [
            _NAMES.get(name, name),
            _interval(entry),
            "" if name == "score" else _difference(entry["score_minus_this"]),
            f"{entry['spearman_with_length']:+.2f}",
        ]
        for name, entry in pairs.items()
    ]
    columns = ["", "pair accuracy", "gated score is better by", "Spearman with length"]
    text = f"\n## Pairs\n\n{pairs['score']['pairs']} pairs, pooled. The best single objective is"
    text += " chosen on the test pairs themselves, which favours it; the fourth column tells what"
    text += " each owes to the longer answer (margin against difference of log characters). The"
    text += " global weighting and the surface features learn from the pairs that the backbone has"
    text += " not seen, and may give weights below 0.\n\n"
    return text + _table(columns, pooled) + "\n" + _by_source(pairs)


def _by_source(pairs: Report) -> str:
    others = [name for name in pairs if name != "score"]
    rows = [
        [
            source,
            str(entry["pairs"]),
            str(entry["prompts"]),
            _interval(entry),
            *(f"{pairs[name]['sources'][source]['value']:.2f}" for name in others),
        ]
        for source, entry in pairs["score"]["sources"].items()
    ]
    return _table(["source", "pairs", "prompts", "gated score", *others], rows)


def _unseen(run: Run | None) -> str:
    if run is None:
        return "\n## Sources never seen\n\nNot measured for this model.\n"
    report = read_report(run.report / "report.json")
    names = ", ".join(sorted(run.left_out))
    text = f"\n## Sources never seen\n\nA second model, trained for {run.steps} steps without"
    text += f" {names}, measured on all pairs of these whose prompts it had not seen either"
    text += f" ({report['pairs']['score']['pairs']}).\n\n"
    chance = "better" if report["pairs"]["score"]["low"] > 0.5 else "no better"
    text += f"Pooled, the gated score is {chance} than chance there: do not trust the model on"
    text += " preferences of kinds that it was not trained on.\n\n"
    return text + _by_source(report["pairs"]) + "\nPooled: " + "; ".join(
        f"{_NAMES.get(name, name)} {_interval(entry)}" for name, entry in report["pairs"].items()
    ) + ".\n"  # fmt: skip


def _length(report: Report, gate: Report) -> str:
    length = report["length"]
    text = "\n## Length\n\n"
    text += _table(
        ["", "with the transform", "without"],
        [
            [
                "Spearman of score and log characters",
                f"{length['spearman_with_transform']:+.3f}",
                f"{length['spearman_without_transform']:+.3f}",
            ],
            [
                "the same for the differences within pairs",
                f"{length['pair_margin_spearman_with_transform']:+.3f}",
                f"{length['pair_margin_spearman_without_transform']:+.3f}",
            ],
            [
                "pair accuracy with these gates",
                f"{length['accuracy_with_transform']:.3f}",
                f"{length['accuracy_without_transform']:.3f}",
            ],
            [
                "pair accuracy on held-out training prompts, gates trained for each",
                f"{gate['held_out_accuracy']:.3f}",
                f"{gate['held_out_accuracy_without_transform']:.3f}",
            ],
        ],
    )
    text += "\nWithout: the same scale of each objective, but no verbosity taken off. The last line"
    text += " is the price of freeing the score from length, on prompts that neither the backbone"
    text += " nor these gates have seen (but for the texts of `lamp`, which has one prompt only);"
    return text + " they chose the steps of the gates, which favours both a little.\n"


def _limits(report: Report) -> str:
    return _LIMITS.format(
        accuracy=report["pairs"]["score"]["value"],
        longer=report["pairs"]["longer wins"]["value"],
        positions=report["max_input_tokens"],
    )


def _training(run: Run) -> str:
    return f"""
## Training

`python -m recipes.pocket --data DATA` (seed {run.seed}): the weights of all-MiniLM-L6-v2 run as a
causal decoder, {run.steps} steps on ratings and pairs of {1 - HELD_OUT_SHARE:.0%} of the training
prompts at once with frozen embeddings; then, on frozen vectors of all training prompts, a ridge
head an objective, the reward transform and the gate. Which heads are kept, the ridge penalties, the
gate's steps and the transform's threshold were chosen on the other {HELD_OUT_SHARE:.0%}. Every
setting is in `recipes/pocket/steps.py`, the labels of each objective in
`recipes/pocket/objectives.json`.
"""


def _data(run: Run) -> str:
    sources: dict[str, dict[str, str]] = json.loads(SOURCES.read_text())
    used = {source_of(path) for kind in ("ratings", "pairs") for path in run.files(kind)}
    rows = [
        [
            name,
            f"{entry['repository']} @ {entry['commit']}",
            entry["licence"],
            entry["annotators"],
        ]
        for name, entry in sources.items()
        if name in used
    ]
    missing = used - sources.keys()
    if missing:
        raise SystemExit(f"{SOURCES.name} does not say where {sorted(missing)} come from")
    text = "\n## Data and licences\n\nThe weights are Apache-2.0, as is the model they start from"
    text += " (sentence-transformers/all-MiniLM-L6-v2). The data are not part of the package;"
    text += " their repositories on GitHub:\n\n"
    text += _table(["source", "repository @ commit", "licence", "rated by"], rows)
    text += "\nSome answers in the data were written by GPT-3.5, GPT-4, Claude and LLaMA models;"
    return text + " their providers' terms may limit training competing models on them.\n"


def _interval(entry: Report) -> str:
    return f"{entry['value']:.3f} ({entry['low']:.2f}..{entry['high']:.2f})"


def _difference(entry: Report) -> str:
    return f"{entry['value']:+.3f} ({entry['low']:+.2f}..{entry['high']:+.2f})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
