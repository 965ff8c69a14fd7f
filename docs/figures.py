"""Write the figures of the pages from the reports they come from: ``python -m docs.figures``.

What stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` is replaced. A test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.steering_front import tables_of
from steerward.models.source import POCKET, POCKET_POLICY, resolve_source

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
STEERING = ROOT / "docs" / "steering.md"
FINE_TUNING = ROOT / "docs" / "fine-tuning.md"
PIPELINES = ROOT / "docs" / "pipelines.md"
ALIGNMENT = ROOT / "docs" / "alignment.md"
PAGES = (README, PERFORMANCE, STEERING, FINE_TUNING, PIPELINES, ALIGNMENT)
RESULTS = ROOT / "benchmarks" / "results"

_METHODS = {
    "padded batches of 8": "transformers, padded batches of 8",
    "one at a time": "transformers, one at a time",
    "engine": "Steerward's engine",
    "HTTP server": "Steerward over HTTP",
}


def with_figures(text: str) -> str:
    """Return a page with the figures of the reports that lie in the repository."""
    pattern = r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: found[1] + _section(found[2]) + found[3], text, flags=re.S)


def _section(name: str) -> str:
    if name == "pocket":
        return _pocket()
    if name == "pocket_policy":
        return _pocket_policy()
    if name == "steering_front":
        return _steering_front()
    return _benchmark() if name == "benchmark" else _measured(name)


def _pocket() -> str:
    report = json.loads((resolve_source(POCKET) / "report.json").read_text())
    pairs, objectives = report["pairs"], report["objectives"]
    score, shown = pairs["score"], _interval(pairs["score"])
    best = sorted(objectives, key=lambda name: -objectives[name]["spearman"])
    listed = ", ".join(f"{name} {objectives[name]['spearman']:.2f}" for name in best)
    text = (
        f"The model in the package: {report['parameters'] / 1e6:.1f} million parameters, "
        f"{len(objectives)} objectives, up to {report['max_input_tokens']:,} tokens, trained by "
        f"`recipes/pocket` on public ratings and preferences. On unseen prompts it orders {shown} "
        f"of {score['pairs']:,} pairs rightly; the longer answer alone gives "
        f"{_interval(pairs['longer wins'])}, the best single weighting of its objectives "
        f"{_interval(pairs['one global weighting'])}. Spearman with the ratings: {listed}.\n"
    )
    unseen = json.loads((resolve_source(POCKET) / "report-unseen.json").read_text())["pairs"]
    text += (
        f"On {len(unseen['score']['sources'])} sources left out of a second, shorter training run "
        f"it orders {_interval(unseen['score'])} of {unseen['score']['pairs']:,} pairs rightly, "
        f"and the longer answer alone gives {_interval(unseen['longer wins'])}.\n"
    )
    return text + "It is a model to try things with, not one to judge other models by.\n"


def _pocket_policy() -> str:
    report = json.loads((resolve_source(POCKET_POLICY) / "report.json").read_text())
    front = report["front"]
    correlation = front["rank_correlation"]["prompt"]
    ends = [point for point in front["points"] if point["way"] == "prompt"]
    first, last = ends[0], ends[-1]
    return (
        f"The policy in the package: {report['parameters'] / 1e6:.1f} million parameters, trained "
        "from random weights by `recipes/pocket_policy`. It makes small talk and is no assistant; "
        "it is there to try steering with. "
        f"From {first['angle']:+d} to {last['angle']:+d} degrees its answers to "
        f"{front['num_prompts']} unseen prompts go from {first['characters']:.0f} to "
        f"{last['characters']:.0f} characters on average; the rank correlation of verbosity and "
        f"its weight over {len(ends)} directions is {correlation:.2f}.\n"
    )


def _steering_front() -> str:
    """Return what the policy in the package was measured to do when it was made."""
    folder = resolve_source(POCKET_POLICY)
    report = json.loads((folder / "report.json").read_text())
    front = report["front"]
    picture = Path("..") / folder.relative_to(ROOT) / "steering.png"
    lines = [
        f"pocket-policy with the rewards of pocket, {front['num_prompts']} prompts of the test "
        "split; rewards in standard deviations of the reward model's reference, intervals by "
        f"resampling prompts. `{report['command']}`\n",
        f"![What directions do]({picture})\n",
    ]
    for table in tables_of(front):
        title = table["title"][0].upper() + table["title"][1:]
        lines.append(f"{title}:\n\n{_table(table['columns'], table['rows'])}")
    return "\n".join(lines)


def _benchmark() -> str:
    path = max(RESULTS.glob("*score_throughput.json"))
    result = json.loads(path.read_text())
    lines = [
        f"Scoring on a CPU ({result['cpu']}, {result['threads']} threads), an 8-layer, 512-wide "
        "Llama with random weights and 19 gated objectives; all scores equal before anything is "
        "timed. Medians of interleaved rounds, from "
        f"`{result['command']}` ([result](benchmarks/results/{path.name})).\n\n"
    ]
    for name in ("groups of 8", "ragged singles"):
        lines.append(_workload(name, result[name]))
    return "\n".join(lines)


def _measured(name: str) -> str:
    """Return the tables of the newest result of a benchmark."""
    found = [(path, json.loads(path.read_text())) for path in RESULTS.glob(f"*-cpu-{name}.json")]
    kept = [(path, result) for path, result in found if "tables" in result]
    if not kept:
        return f"Not measured yet: `make bench-{name}`.\n"
    path, result = max(kept, key=lambda one: one[0].name)
    lines = [
        f"{result['cpu']}, {result['threads']} threads, torch {result['torch']}, {result['date']}, "
        f"`{result['command']}` ([result](../benchmarks/results/{path.name})).\n"
    ]
    for table in result["tables"]:
        title = table["title"][0].upper() + table["title"][1:]
        lines.append(f"{title}:\n\n{_table(table['columns'], table['rows'])}")
    picture = Path("images") / f"{name}-cpu.png"
    if (PERFORMANCE.parent / picture).exists():
        lines.append(f"![{name}]({picture})\n")
    return "\n".join(lines)


def _workload(name: str, result: Any) -> str:
    speeds, memory = result["candidates_per_s"], result["peak_memory_mib"]
    rows = [
        [
            shown,
            f"{speeds[method]:.1f}",
            f"{speeds[method] / speeds['padded batches of 8']:.2f}x",
            f"{memory[method]:.0f}",
        ]
        for method, shown in _METHODS.items()
    ]
    return _table([name, "candidates/s", "speed", "peak memory, MiB"], rows)


def _interval(entry: Any) -> str:
    return f"{entry['value']:.1%} ({entry['low']:.1%} to {entry['high']:.1%})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_figures(page.read_text(encoding="utf-8")), encoding="utf-8")
