"""Settings of ``steerward evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from steerward.config import POSITIONAL, EngineConfig

BenchmarkName = Literal["reward-bench", "reward-bench-2", "rm-bench", "judge-bench", "ifeval"]


class BenchmarkConfig(EngineConfig):
    """Measure a reward model on a published benchmark, by the benchmark's own rule.

    BENCHMARK is reward-bench, reward-bench-2, rm-bench or judge-bench. The rows are files as their
    authors publish them: Parquet, JSON lines (also .gz) or a JSON list. Nothing is downloaded. The
    model is loaded here, or asked for behind --server.

    BENCHMARK ifeval measures responses of any policy instead, which --responses holds: whether
    they follow the instructions of their prompts, strictly and loosely.

    Rows that cannot be scored, such as texts over the length limit, are never cut and never left
    out in silence: they are counted and listed, the result is marked incomplete, and the exit
    status is 3.

    Examples:
      steerward evaluate reward-bench-2 test.parquet
      steerward evaluate reward-bench filtered.parquet --reward-model ./my-model --out report.json
      steerward evaluate rm-bench total_dataset.json --server http://127.0.0.1:8000
      steerward evaluate judge-bench gpt.jsonl --direction '{"helpfulness": 1, "verbosity": -1}'
      steerward evaluate ifeval input_data.jsonl --responses responses.jsonl
    """

    benchmark: Annotated[BenchmarkName, POSITIONAL]
    """reward-bench, reward-bench-2, rm-bench, judge-bench or ifeval."""
    files: Annotated[list[Path], POSITIONAL] = Field(min_length=1)
    """File of rows as published, or a folder of such files."""
    reward_model: str | None = None
    """Checkpoint folder, hub id (owner/name or owner/name@revision) or `pocket`, loaded here.
    Default: `pocket`, unless a server is given."""
    server: str | None = None
    """URL of a server that scores, in place of a model loaded here."""
    model: str | None = None
    """Name of the reward model on the server. Default: its only one."""
    api_key: SecretStr | None = None
    """Bearer key of the server. Prefer the environment: flags show in `ps`."""
    weights: dict[str, float] | None = None
    """JSON object: weights by objective in place of the gates; measures `weighted_score`."""
    direction: dict[str, float] | None = None
    """JSON object: preference direction by objective; measures `direction_score`."""
    responses: Path | None = None
    """Of ifeval: JSON lines with `prompt` and `response`."""
    out: Path | None = None
    """Report to write, JSON. Scores are kept beside it as they come, and the same command goes on
    where it was stopped."""
    overwrite: bool = False
    """Start over, replacing the report and the scores beside it."""
    format: Literal["table", "markdown", "json"] = "table"
    """What to print: a table, Markdown, or the report as JSON."""
    parallel: int = Field(default=64, ge=1, le=100)
    """Rows that are on their way at once. Higher fills a GPU, and the queue of a server."""
    request_timeout_s: float = Field(default=math.inf, gt=0)
    """Seconds after which a row that has no scores yet ends a run with a model loaded here; inf
    for no limit."""

    @field_validator("files", mode="before")
    @classmethod
    def _one_is_a_list(cls, files: object) -> object:
        return [files] if isinstance(files, str | Path) else files

    @field_validator("server")
    @classmethod
    def _is_a_url(cls, server: str | None) -> str | None:
        if server is None:
            return None
        if not server.startswith(("http://", "https://")):
            raise ValueError("give a URL with http:// or https://")
        return server.rstrip("/").removesuffix("/v1").rstrip("/")

    @model_validator(mode="after")
    def _one_way_to_score(self) -> BenchmarkConfig:
        if self.server is not None and self.reward_model is not None:
            raise ValueError(
                f"reward_model {self.reward_model!r} and server {self.server!r} are both given, "
                "as flags or in the environment; leave one out"
            )
        if self.server is None and self.model is not None:
            raise ValueError(
                f"model {self.model!r} names one of a server, and there is no server; give "
                "--server, or --reward-model"
            )
        if self.weights is not None and self.direction is not None:
            raise ValueError("weights and direction are both given; leave one out")
        return self

    @model_validator(mode="after")
    def _responses_are_for_instructions(self) -> BenchmarkConfig:
        if (self.responses is not None) != (self.benchmark == "ifeval"):
            raise ValueError(
                "ifeval measures responses: give them with --responses; other benchmarks have none"
            )
        return self

    @property
    def key(self) -> str | None:
        """The key in clear, for the header."""
        return None if self.api_key is None else self.api_key.get_secret_value()
