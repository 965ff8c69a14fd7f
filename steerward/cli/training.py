"""``steerward train ...``: run a step and tell people what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from steerward import logs
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.multilabel.settings import MultiLabelConfig
from steerward.training.config import (
    BackboneConfig,
    EmbedConfig,
    EvaluateConfig,
    GatingConfig,
    HeadsConfig,
    PackageConfig,
)


def run_backbone(config: BackboneConfig) -> None:
    """Train a backbone."""
    from steerward.training.backbone import run_backbone as run

    logs.set_up("warning", "text")
    folder = run(config)
    print(f"backbone -> {folder}")


def run_embed(config: EmbedConfig) -> None:
    """Compute vectors."""
    from steerward.training.embeddings import run_embed as run

    logs.set_up("warning", "text")
    skipped = run(config)
    for name, count in skipped.items():
        print(f"{name}: {count} rows are longer than the backbone reaches and have no vectors")


def run_heads(config: HeadsConfig) -> None:
    """Fit heads."""
    from steerward.training.heads import run_heads as run

    logs.set_up("warning", "text")
    report = run(config)
    for name, entry in report["objectives"].items():
        print(_head_line(name, entry))
    for name, entry in report["dropped"].items():
        print(f"{_head_line(name, entry)}  dropped")


def run_gating(config: GatingConfig) -> None:
    """Fit the transform and train the gate."""
    from steerward.training.gating import run_gating as run

    logs.set_up("warning", "text")
    accuracy, plain = run(config)
    print(f"held-out pair accuracy {accuracy:.3f}; without the reward transform {plain:.3f}")


def run_package(config: PackageConfig) -> None:
    """Package a checkpoint."""
    from steerward.training.package import run_package as run

    logs.set_up("warning", "text")
    folder = run(config)
    print(
        f"served scores equal those of training; serve it: steerward serve --reward-model {folder}"
    )


def run_evaluate(config: EvaluateConfig) -> None:
    """Measure a reward model."""
    from steerward.training.evaluate import run_evaluate as run
    from steerward.training.evaluate import summary

    logs.set_up("warning", "text")
    print(summary(run(config)))


def run_multilabel(config: MultiLabelConfig) -> None:
    """Train a model with several labels."""
    from steerward.training.align.multilabel.run import train_multilabel

    logs.set_up("warning", "text")
    train_multilabel(config, told=_told)
    print(f"model -> {config.out}; serve it: steerward serve --reward-model {config.out}")


def run_mapl(config: MaplConfig) -> None:
    """Train a reward model by MAPL."""
    from steerward.training.align.mapl.run import train_mapl

    logs.set_up("warning", "text")
    folder = train_mapl(config, told=_told)
    print(
        f"model -> {folder / 'model'}; serve it: steerward serve --reward-model {folder / 'model'}"
    )


def _told(step: int, metrics: Mapping[str, float]) -> None:
    told = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    print(f"step {step}: {told}", file=sys.stderr)


def _head_line(name: str, entry: dict[str, Any]) -> str:
    return (
        f"{name:18} {entry['rows']:6} rows  alpha {entry['alpha']:<8g} held out: "
        f"Spearman {entry['spearman']:.3f}  Pearson {entry['pearson']:.3f}  "
        f"MSE {entry['mse']:.4f} (label variance {entry['label_variance']:.4f})"
    )
