"""``steerward serve`` and ``steerward score``."""

from __future__ import annotations

import asyncio
import sys

from steerward import logs
from steerward.config import ScoreFileConfig, ServeConfig


def run_serve(config: ServeConfig) -> None:
    """Serve until told to stop."""
    from steerward.server.run import serve

    logs.set_up(config.log_level, config.log_format)
    serve(config)


def run_score(config: ScoreFileConfig) -> int:
    """Score a file; the status is 1 if a row became an error row."""
    from steerward.engine.bulk import score_file

    logs.set_up("warning", "text")
    report = asyncio.run(score_file(config))
    print(
        f"{report.rows} rows: {report.scored} scored, {report.failed} with errors, "
        f"{report.resumed} were there already -> {config.target}",
        file=sys.stderr,
    )
    return 1 if report.failed else 0
