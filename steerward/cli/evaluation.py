"""``steerward evaluate``: a benchmark's files, a reward model, and the number that comes out."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from steerward import logs
from steerward.cli.evaluation_settings import BenchmarkConfig
from steerward.protocol.errors import InvalidRequest

INCOMPLETE = 3
"""Exit status where the headline is not the benchmark's number."""


def run_evaluate(config: BenchmarkConfig) -> int:
    """Evaluate, print what came out, and return the status: 3 if the result is incomplete."""
    if config.responses is not None:
        return _evaluate_instructions(config, config.responses)
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


def _evaluate_instructions(config: BenchmarkConfig, responses: Path) -> int:
    from steerward.evaluation.if_eval import evaluate_instructions

    if config.out is not None and config.out.exists() and not config.overwrite:
        raise InvalidRequest(
            f"{config.out} exists; choose another --out, or replace it with --overwrite"
        )
    report = evaluate_instructions(config.files, responses)
    told = json.dumps(report.as_json(), indent=2, allow_nan=False)
    if config.out is not None:
        temporary = config.out.with_name(config.out.name + ".tmp")
        temporary.write_text(told + "\n", encoding="utf-8")
        temporary.replace(config.out)
    if config.format == "json":
        print(told)
    else:
        print(report.as_markdown() if config.format == "markdown" else report.as_text())
    return 0
