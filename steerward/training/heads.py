"""Stage 1 of ArmoRM (arXiv:2406.12845): a head an objective, from embedded rows to files.

Axis legend: N rated responses, P pairs, S responses of a pair, K objectives, H hidden.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file
from torch import Tensor

from steerward.models.heads import RewardHeads
from steerward.protocol.errors import DatasetRefused
from steerward.training.config import HeadsConfig
from steerward.training.data.labels import (
    describe,
    label_matrix,
    load_objectives,
    objectives_of_categories,
)
from steerward.training.data.rows import PreferencePair, RatedResponse, Row, held_out
from steerward.training.embeddings import load_embedded
from steerward.training.files import write_json, write_tensors
from steerward.training.ridge import HeadFit, PairRows, fit_head

HEADS_FILE = "heads.safetensors"
REPORT_FILE = "heads.json"


class FoldArguments(TypedDict):
    """Arguments of `held_out`."""

    share: float
    seed: int


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """The heads of a run, as `run_heads` wrote them."""

    names: tuple[str, ...]
    heads: RewardHeads
    selection_heads: RewardHeads
    """Fitted without the held-out rows."""
    report: Mapping[str, Any]

    @property
    def weight_version(self) -> str:
        """Of the backbone whose vectors they read."""
        return str(self.report["weight_version"])

    @property
    def fold(self) -> FoldArguments:
        """What `held_out` needs to hold out the same prompts again."""
        config = self.report["config"]
        return {"share": config["validation_share"], "seed": config["seed"]}


def run_heads(config: HeadsConfig) -> dict[str, Any]:
    """Fit the heads of a configuration, write them, and return their report.

    Raises:
        SteerwardError: If data or vectors are absent, or an objective has too few labels.
    """
    objectives = load_objectives(config.objectives)
    rows, last_NH, version = _load_ratings(config)
    pairs = _load_pairs(config, version)
    categories = objectives_of_categories(objectives)
    labels_NK = label_matrix(rows, objectives)
    held_out_N = _held_out(rows, config)
    weights_N = _source_weights(rows) if config.balance_sources else torch.ones(len(rows))
    fits: dict[str, HeadFit] = {}
    dropped: dict[str, dict[str, float | int]] = {}
    for k, name in enumerate(objectives):
        fit = fit_head(
            last_NH,
            labels_NK[:, k],
            held_out_N=held_out_N,
            weights_N=weights_N,
            alphas=config.alphas,
            name=name,
            pairs=_pairs_about(k, pairs, categories, config),
        )
        is_weak = config.min_spearman is not None and fit.report["spearman"] < config.min_spearman
        if is_weak:
            dropped[name] = fit.report
        else:
            fits[name] = fit
    if not fits:
        raise DatasetRefused(f"every head is below min_spearman {config.min_spearman}")
    config.out.mkdir(parents=True, exist_ok=True)
    write_tensors(
        config.out / HEADS_FILE,
        {
            "heads.weight": torch.stack([fit.weight_H for fit in fits.values()]).float(),
            "heads.bias": torch.tensor([fit.bias for fit in fits.values()]),
            "selection.weight": torch.stack(
                [fit.selection_weight_H for fit in fits.values()]
            ).float(),
            "selection.bias": torch.tensor([fit.selection_bias for fit in fits.values()]),
        },
    )
    report = {
        "weight_version": version,
        "objectives": {name: fit.report for name, fit in fits.items()},
        "dropped": dropped,
        "descriptions": {
            name: describe(objectives[name], with_pairs=bool(config.pairs)) for name in fits
        },
        "config": json.loads(config.model_dump_json()),
    }
    write_json(config.out / REPORT_FILE, report)
    return report


def read_heads(folder: Path) -> FittedHeads:
    """Return the heads that `run_heads` wrote.

    Raises:
        DatasetRefused: If there are none.
    """
    if not (folder / REPORT_FILE).is_file():
        raise DatasetRefused(f"there are no heads in {folder}; run `steerward train heads`")
    report = json.loads((folder / REPORT_FILE).read_text())
    tensors = load_file(folder / HEADS_FILE)
    heads, selection_heads = (
        RewardHeads(tensors[f"{kind}.weight"], tensors[f"{kind}.bias"])
        for kind in ("heads", "selection")
    )
    return FittedHeads(tuple(report["objectives"]), heads, selection_heads, report)


def _load_ratings(config: HeadsConfig) -> tuple[list[RatedResponse], Tensor, str]:
    """Return the training rows that have vectors, their vectors, and the backbone's version."""
    files = [load_embedded(path, RatedResponse, config.embeddings) for path in config.data]
    versions = {file.weight_version for file in files}
    if len(versions) > 1:
        raise DatasetRefused(f"the vectors are of several backbones: {sorted(versions)}")
    rows = [row for file in files for row in file.rows]
    if not rows:
        raise DatasetRefused("no row of the data has split 'train'")
    return rows, torch.cat([file.last_NSH[:, 0] for file in files]), versions.pop()


@dataclass(frozen=True, slots=True)
class _Pairs:
    rows: list[PreferencePair]
    differences_PH: Tensor
    held_out_P: Tensor


def _load_pairs(config: HeadsConfig, version: str) -> _Pairs | None:
    if not config.pairs:
        return None
    files = [
        load_embedded(path, PreferencePair, config.embeddings, weight_version=version)
        for path in config.pairs
    ]
    rows = [row for file in files for row in file.rows]
    last_PSH = torch.cat([file.last_NSH for file in files])
    return _Pairs(rows, last_PSH[:, 0] - last_PSH[:, 1], _held_out(rows, config))


def _pairs_about(
    objective: int,
    pairs: _Pairs | None,
    categories: Mapping[str, Sequence[int]],
    config: HeadsConfig,
) -> PairRows | None:
    """Return the pairs whose category is about an objective."""
    if pairs is None:
        return None
    about = [objective in categories.get(pair.category or "", ()) for pair in pairs.rows]
    mask_P = torch.tensor(about, dtype=torch.bool)
    return PairRows(
        pairs.differences_PH[mask_P],
        pairs.held_out_P[mask_P],
        weight=config.pair_weight,
        margin=config.pair_margin,
    )


def _held_out(rows: Sequence[Row], config: HeadsConfig) -> Tensor:
    fold = held_out(rows, share=config.validation_share, seed=config.seed)
    return torch.tensor(fold, dtype=torch.bool)


def _source_weights(rows: Sequence[RatedResponse]) -> Tensor:
    counts = Counter(row.source for row in rows)
    return torch.tensor([counts[row.source] ** -0.5 for row in rows])
