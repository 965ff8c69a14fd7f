"""``steerward evaluate``: a benchmark's files, a reward model, and the number that comes out."""

from __future__ import annotations

import asyncio
import json
import sys

from steerward import logs
from steerward.cli.evaluation_settings import BenchmarkConfig

INCOMPLETE = 3
"""Exit status where the headline is not the benchmark's number."""


def run_evaluate(config: BenchmarkConfig) -> int:
    """Evaluate, print what came out, and return the status: 3 if the result is incomplete."""
    from steerward.evaluation.benchmarks import BENCHMARKS
    from steerward.evaluation.run import Evaluation, evaluate
    from steerward.evaluation.scorer import Steering, local_scorer, server_scorer
    from steerward.evaluation.tables import as_markdown, as_text

    logs.set_up("warning", "text")
    evaluation = Evaluation(
        benchmark=BENCHMARKS[config.benchmark],
        files=tuple(config.files),
        steering=Steering(config.weights, config.direction),
        parallel=config.parallel,
        out=config.out,
        overwrite=config.overwrite,
    )
    if config.server is None:
        scorer = local_scorer(config.reward_model or "pocket", config=config)
    else:
        scorer = server_scorer(config.server, api_key=config.key, model=config.model)
    report = asyncio.run(evaluate(evaluation, scorer))
    if config.format == "json":
        print(json.dumps(report.as_json(), indent=2))
    else:
        print(as_markdown(report) if config.format == "markdown" else as_text(report))
    if not report.is_complete:
        print(f"steerward: incomplete: {'; '.join(report.gaps)}", file=sys.stderr)
    return 0 if report.is_complete else INCOMPLETE
