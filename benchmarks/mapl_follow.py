"""MAPL against its Bradley-Terry twin: which reward model follows instructions of unseen kinds?

    python -m benchmarks.mapl_follow [--pairs FOLDER_OR_FILE] [--out FILE.json] [--plot FILE.png]

Two reward models begin with the same weights and the same head and learn from the same pairs, for
as many optimiser steps of as many conversations: by MAPL, from the pairs and the rows that are
built of them, and by Bradley-Terry, from the pairs alone. A quarter of the kinds of instructions
and a share of the prompts are held out, by each seed anew. Told is how often a model prefers

- behind a prompt with instructions of held-out kinds, the response that meets them all over the one
  that meets none of them: where the preferred response of the pair meets them, and where the other
  does, which are as many;
- behind the prompt that it follows better, one and the same response;
- without instructions, the preferred response of a pair.

Intervals are 95 %, of the mean over seeds by resampling held-out pairs.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import main, table
from benchmarks.dialogues import dialogues
from benchmarks.mapl_follow_plot import draw_accuracies
from steerward.training.align.mapl.evaluate import INTER, INTRA, ORIGINAL
from steerward.training.align.mapl.run import train_mapl
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.run_folder import Evaluation, read_run

MAPL, TWIN = "MAPL", "Bradley-Terry"
WITH, AGAINST = "follows, with the preference", "follows, against the preference"
FOLLOWS, APART, PAIRS = "follows instructions", "tells prompts apart", "original pairs"
MEASURES = (FOLLOWS, WITH, AGAINST, APART, PAIRS)
_RESAMPLES = 2000
# A pair gives a row of two conversations, two intra rows of two and two inter rows of four: five
# rows of 14 conversations together, where five pairs have 10.
_TWIN_ROWS = 1.4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained and measured."""

    pairs: str = ""
    """Pair file, or folder of pair files, JSON lines with messages, chosen and rejected; default:
    pairs of our own."""
    num_pairs: int = 3000
    """Most of them, drawn, one of a prompt."""
    max_characters: int = 140
    """Of a prompt, and of a response."""
    base: str = "pocket-policy"
    steps: int = 240
    seeds: int = 3
    batch_size: int = 20
    """Rows of a step of MAPL; the twin's steps have as many conversations."""
    learning_rate: float = 1e-3
    held_out_share: float = 0.12
    held_out_kinds_share: float = 0.25
    min_instructions: int = 2
    max_instructions: int = 3
    measure_every: int = 120
    plot: str = ""


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return how often each model is right, by measure, step and seed."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "pairs.jsonl"
    rows = list(_own_pairs()) if not setting.pairs else _drawn(setting)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found: dict[str, list[dict[str, Any]]] = {MAPL: [], TWIN: []}
    for seed in range(setting.seeds):
        for way in found:
            found[way].append(_train(setting, path, work, way=way, seed=seed))
    return {"num_pairs": len(rows), **summarise(found, setting)}


def _own_pairs() -> Iterator[dict[str, str]]:
    for item in dialogues():
        good, *weaker = item.candidates
        for weak in weaker:
            yield {"prompt": item.prompt, "chosen": good, "rejected": weak}


def _drawn(setting: Setting) -> list[dict[str, Any]]:
    """Return pairs of files, short ones, one of a prompt, in an order of their own."""
    source = Path(setting.pairs)
    paths = sorted(source.glob("*.jsonl*")) if source.is_dir() else [source]
    by_prompt: dict[str, dict[str, Any]] = {}
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                prompt = "\n".join(turn["content"] for turn in row["messages"])
                texts = (prompt, row["chosen"], row["rejected"])
                is_short = all(0 < len(text.strip()) <= setting.max_characters for text in texts)
                if is_short and row["chosen"] != row["rejected"] and row["split"] == "train":
                    kept = {name: row[name] for name in ("messages", "chosen", "rejected")}
                    by_prompt.setdefault(prompt, kept)
    rows = random.Random(0).sample(list(by_prompt.values()), len(by_prompt))
    return rows[: setting.num_pairs]


def _train(setting: Setting, pairs: Path, work: Path, *, way: str, seed: int) -> dict[str, Any]:
    """Train one model, and return by step which held-out rows it is right about."""
    weight = 1.0 if way == MAPL else 0.0
    rows = setting.batch_size if way == MAPL else round(_TWIN_ROWS * setting.batch_size)
    started = time.perf_counter()
    folder = train_mapl(
        MaplConfig(
            start=setting.base,
            pairs=[pairs],
            out=work / f"{way}-{seed}",
            name=way,
            lambda_intra=weight,
            lambda_inter=weight,
            min_instructions=setting.min_instructions,
            max_instructions=setting.max_instructions,
            held_out_kinds_share=setting.held_out_kinds_share,
            held_out_share=setting.held_out_share,
            min_rows_share=0.0,
            max_steps=setting.steps,
            batch_size=rows,
            learning_rate=setting.learning_rate,
            checkpoint_steps=setting.steps,
            evaluation_steps=setting.measure_every,
            seed=seed,
        )
    )
    found = read_run(folder)
    described = found.settings.model_extra or {}
    # Rows of a pair stand two by two.
    assert not described["held_out_left_out"]["over max_tokens"], "lower max_characters"
    steps = {one.step: _measures(one) for one in found.evaluations}
    shown = {name: round(float(np.mean(of)), 3) for name, of in steps[setting.steps].items()}
    print(f"seed {seed}, {way}: {shown}", file=sys.stderr)
    return {
        "steps": steps,
        "held_out_kinds": described["held_out_kinds"],
        "seconds": time.perf_counter() - started,
    }


def _measures(evaluation: Evaluation) -> dict[str, list[float]]:
    """Return right and wrong by measure, a number for each held-out pair."""
    right = {
        name: np.array([one for one in of if one is not None])
        for name, of in evaluation.rewards.items()
    }
    inter, intra = (right[name].reshape(-1, 2) for name in (INTER, INTRA))
    return {
        FOLLOWS: inter.mean(axis=1).tolist(),
        WITH: inter[:, 0].tolist(),
        AGAINST: inter[:, 1].tolist(),
        APART: intra.mean(axis=1).tolist(),
        PAIRS: right[ORIGINAL].tolist(),
    }


def summarise(found: Mapping[str, Sequence[Mapping[str, Any]]], setting: Setting) -> dict[str, Any]:
    """Return accuracies by measure and step with intervals, and what MAPL gains.

    Args:
        found: By way, a training for each seed.
        setting: Of the run.
    """
    last = max(found[MAPL][0]["steps"])
    points = [
        {"way": way, "step": step, "measure": measure, **_interval(_values(one, step, measure))}
        for way, one in found.items()
        for step in one[0]["steps"]
        for measure in MEASURES
    ]
    gains = {
        measure: _interval(
            [
                ours - theirs
                for ours, theirs in zip(
                    _values(found[MAPL], last, measure),
                    _values(found[TWIN], last, measure),
                    strict=True,
                )
            ]
        )
        for measure in MEASURES
    }
    shown = {
        "points": points,
        "gains": gains,
        "held_out_kinds": [one["held_out_kinds"] for one in found[MAPL]],
        "seconds": {way: [one["seconds"] for one in of] for way, of in found.items()},
    }
    if setting.plot:
        draw_accuracies(points, (MAPL, TWIN), (FOLLOWS, AGAINST, APART, PAIRS), Path(setting.plot))
    return {**shown, "tables": _tables(shown, last)}


def _values(
    trained: Sequence[Mapping[str, Any]], step: int, measure: str
) -> list[np.ndarray[Any, Any]]:
    return [np.array(one["steps"][step][measure]) for one in trained]


def _interval(by_seed: Sequence[np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Return the mean over seeds, whose held-out pairs are resampled each on their own."""
    numbers = np.random.default_rng(0)
    means = np.mean(
        [
            values[numbers.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
            for values in by_seed
        ],
        axis=0,
    )
    low, high = np.quantile(means, [0.025, 0.975])
    seeds = [float(values.mean()) for values in by_seed]
    return {
        "mean": float(np.mean(seeds)),
        "low": float(low),
        "high": float(high),
        "by_seed": seeds,
    }


def _told(value: Mapping[str, Any], sign: str = "") -> str:
    return f"{value['mean']:{sign}.1%} ({value['low']:{sign}.1%}..{value['high']:{sign}.1%})"


def _tables(shown: Mapping[str, Any], last: int) -> list[dict[str, Any]]:
    by_place = {(one["way"], one["step"], one["measure"]): one for one in shown["points"]}
    rows = [
        [
            measure,
            _told(by_place[MAPL, 0, measure]),
            _told(by_place[TWIN, last, measure]),
            _told(by_place[MAPL, last, measure]),
            _told(shown["gains"][measure], "+"),
            " ".join(f"{one:+.1%}" for one in shown["gains"][measure]["by_seed"]),
        ]
        for measure in MEASURES
    ]
    columns = ["right about", "untrained", TWIN, MAPL, "gain", "gain by seed"]
    seconds = [
        [way, *(f"{np.mean(of):.0f}" for of in [shown["seconds"][way]])] for way in (MAPL, TWIN)
    ]
    return [
        table("accuracy on held-out pairs and kinds of instructions", columns, rows),
        table("seconds of a training, with all that is measured", ["way", "mean"], seconds),
    ]


if __name__ == "__main__":
    main(Setting, run)
