"""Settings of `steerward score`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from steerward.config.engine import EngineConfig
from steerward.config.settings import POSITIONAL


def _from_json(value: object) -> object:
    """Return what a flag spells in JSON; files hold it as a table already."""
    return json.loads(value) if isinstance(value, str) else value


_Direction = Annotated[dict[str, float], BeforeValidator(_from_json)]


class ScoreFileConfig(EngineConfig):
    """Score a JSON-lines file without a server.

    Each input row is an item as in `POST /v1/score`: {"prompt": ..., "candidates": [...]} or
    {"messages": [...]} or {"tokens": {...}}, with an optional "id", a string or an integer, that
    comes back. Blank lines are skipped; each other line gives one output row, in order, and "row"
    counts them from 0. A bad row becomes a row with an "error" and the rest goes on. If the
    device fails, or the run is killed, run it again to go on where it stopped.

    Examples:
      steerward score in.jsonl out.jsonl
      steerward score in.jsonl out.jsonl --direction '{"helpfulness": 1, "verbosity": -1}'
    """

    source: Annotated[Path, POSITIONAL]
    """Input file, JSON lines in UTF-8."""
    target: Annotated[Path, POSITIONAL]
    """Output file, JSON lines; its progress is kept beside it until it is complete."""
    reward_model: str = "pocket"
    """Checkpoint folder, hub id (owner/name or owner/name@revision) or `pocket`."""
    weights: dict[str, float] | None = None
    """JSON object: weights by objective in place of the gates; adds `weighted_score`."""
    direction: dict[str, float] | None = None
    """JSON object: preference direction by objective; adds `direction_score`."""
    directions: tuple[_Direction, ...] | None = None
    """JSON object; repeatable, for several directions at once; adds `direction_scores`."""
    explain: bool = False
    """Add gates, coefficients, contributions and ratings."""
    overwrite: bool = False
    """Start over, replacing the output file."""
    max_queued_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens, roughly, of the rows that are read ahead of the device. No row is refused for it:
    reading waits. Lower saves memory; keep it at several times max_batch_tokens."""
    request_timeout_s: float = Field(default=math.inf, gt=0)
    """Seconds after which a row that has no scores yet ends the run; inf for no limit."""
