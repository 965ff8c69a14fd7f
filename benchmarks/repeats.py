"""The same prompts again with fresh candidates: what is kept of a prompt between requests.

    python -m benchmarks.repeats [--rounds N] [--out FILE.json]

Each round has prompts that no round had before, so nothing is kept of them. A first pass scores
candidates behind them, a second pass fresh candidates behind the same prompts, once the first is
answered. With prompts kept, the second pass computes candidates only. Plain transformers and, where
the engine has the setting, an engine that keeps nothing are measured beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.measure import orders, ratio, timed
from benchmarks.subjects import (
    ALONE,
    ENGINE,
    EngineSubject,
    PlainSubject,
    Subject,
    has_setting,
    opened,
)
from benchmarks.throughput import CHECK, check_equal
from benchmarks.tokens import needed_tokens
from benchmarks.workload import Item, Texts, write_checkpoint

PASSES = ("first", "second")
NOTHING_KEPT = "engine, nothing kept"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 7
    prompts: int = 4
    candidates: int = 4
    """Behind each prompt, in each pass."""
    prompt_tokens: int = 768
    candidate_tokens: int = 96
    layers: int = 8
    width: int = 512

    def passes(self, number: int) -> list[list[Item]]:
        """Return the items of both passes of a round; no two rounds share a prompt."""
        texts = Texts(0, number)
        size, own = self.prompt_tokens, self.candidate_tokens
        prompts = [texts.text(size, size) for _ in range(self.prompts)]
        return [
            [
                Item(prompt, [texts.text(own, own) for _ in range(self.candidates)])
                for prompt in prompts
            ]
            for _ in PASSES
        ]


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the figures of both passes on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    with ExitStack() as stack:
        subjects: dict[str, Subject] = {ENGINE: stack.enter_context(opened(EngineSubject(folder)))}
        if has_setting("prefix_cache_bytes"):
            plain_engine = EngineSubject(folder, prefix_cache_bytes=0)
            subjects[NOTHING_KEPT] = stack.enter_context(opened(plain_engine))
        subjects[ALONE] = stack.enter_context(opened(PlainSubject(folder, batch_size=1)))
        errors = {
            name: check_equal(subjects, items, expected=subjects[ALONE].score(items))
            for name, items in zip(PASSES, setting.passes(CHECK), strict=True)
        }
        seconds, tokens = _measure(subjects, setting)
    first, second = setting.passes(0)
    both = needed_tokens(folder, [*first, *second])
    needed = {"first": needed_tokens(folder, first)}
    needed["second"] = both - needed["first"]
    result = {
        "needed_tokens": needed,
        "computed_tokens": tokens,
        "max_abs_error": errors,
        "seconds": seconds,
    }
    return {**result, "tables": [_table(setting, result)]}


def _measure(
    subjects: Mapping[str, Subject], setting: Setting
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, int]]]:
    """Return seconds of each pass by way, and the tokens that it computed in the last round."""
    seconds: dict[str, dict[str, list[float]]] = {w: {p: [] for p in PASSES} for w in subjects}
    tokens: dict[str, dict[str, int]] = {way: {} for way in subjects}
    for number, way in orders(list(subjects), rounds=setting.rounds):
        subject = subjects[way]
        for name, items in zip(PASSES, setting.passes(number), strict=True):
            before = subject.computed_tokens
            took = timed(lambda s=subject, i=items: s.score(i))
            tokens[way][name] = subject.computed_tokens - before
            if number >= 0:
                seconds[way][name].append(took)
    return seconds, tokens


def _table(setting: Setting, result: Mapping[str, Any]) -> dict[str, Any]:
    needed, count = result["needed_tokens"], setting.prompts * setting.candidates
    rows: list[list[str]] = []
    for way, seconds in result["seconds"].items():
        over = ratio(seconds["first"], seconds["second"])
        for name in PASSES:
            computed = result["computed_tokens"][way][name]
            faster = f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})"
            rows.append(
                [
                    f"{way}, {name} pass",
                    f"{count / statistics.median(seconds[name]):.1f}",
                    faster if name == "second" else "",
                    f"{computed:,}",
                    f"{needed[name] / computed:.0%}",
                    f"{result['max_abs_error'][name][way]:.0e}",
                ]
            )
    title = (
        f"the same {setting.prompts} prompts again: {needed['first']:,} tokens needed in the first "
        f"pass, {needed['second']:,} in the second; {needed['first'] / needed['second']:.2f} times "
        "the speed of the first is possible"
    )
    return table(title, ["way", "candidates/s", "over first", "tokens", "limit", "error"], rows)


if __name__ == "__main__":
    main(Setting, run)
