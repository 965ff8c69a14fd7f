"""Stage 1 of ArmoRM (arXiv:2406.12845): one ridge regression an objective, missing labels left out.

Preference pairs may take part: a pair whose category is about an objective adds a row that asks
for the chosen response to have more of it, by a margin. The head stays one linear map in the
unit of its ratings.

Axis legend: N rated responses, P pairs, K objectives, H hidden.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from steerward.gating.transform import rank_correlation
from steerward.models.heads import RewardHeads
from steerward.protocol.errors import DatasetRefused
from steerward.training.config import HeadsConfig
from steerward.training.data.labels import (
    describe,
    label_matrix,
    load_objectives,
    objectives_of_categories,
)
from steerward.training.data.rows import PreferencePair, RatedResponse, Row, in_fold
from steerward.training.embeddings import load_embedded
from steerward.training.files import write_json, write_tensors

HEADS_FILE = "heads.safetensors"
REPORT_FILE = "heads.json"


@dataclass(frozen=True, slots=True)
class PairRows:
    """Pairs that are about an objective."""

    differences_PH: Tensor
    """Vector of the chosen response minus that of the rejected one."""
    held_out_P: Tensor
    weight: float
    """Weight of all pairs together, as a multiple of that of all ratings."""
    margin: float
    """By how much the chosen response should have more, in standard deviations of the labels."""


@dataclass(frozen=True, slots=True)
class HeadFit:
    """One fitted head and how it did on held-out prompts."""

    weight_H: Tensor
    bias: float
    report: dict[str, float | int]


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """The heads of a run, as `run_heads` wrote them."""

    names: tuple[str, ...]
    heads: RewardHeads
    report: Mapping[str, Any]


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
        },
    )
    report = {
        "weight_version": version,
        "objectives": {name: fit.report for name, fit in fits.items()},
        "dropped": dropped,
        "descriptions": {name: describe(objectives[name]) for name in fits},
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
    heads = RewardHeads(tensors["heads.weight"], tensors["heads.bias"])
    return FittedHeads(tuple(report["objectives"]), heads, report)


def fit_head(
    last_NH: Tensor,
    labels_N: Tensor,
    *,
    held_out_N: Tensor,
    weights_N: Tensor,
    alphas: Sequence[float],
    name: str,
    pairs: PairRows | None = None,
) -> HeadFit:
    """Return the ridge regression of one objective.

    Minimises ``sum_n w_n (x_n . b + c - y_n)^2 + sum_p q (d_p . b - m)^2 + alpha |b|^2`` in
    float64, d_p the vector difference of a pair and m its margin; the intercept c is not
    penalised. Alpha has the lowest weighted squared error on the held-out ratings; then the head
    is fitted on all rows.

    Args:
        last_NH: Last-token vectors.
        labels_N: Labels, NaN where missing.
        held_out_N: Rows that choose alpha.
        weights_N: Row weights.
        alphas: Penalties to try.
        name: For messages.
        pairs: Pairs that are about the objective.

    Raises:
        DatasetRefused: If fewer than two rows have labels on either side of the split.
    """
    has_label_N = ~torch.isnan(labels_N)
    train, held_out = (
        torch.nonzero(has_label_N & side).flatten() for side in (~held_out_N, held_out_N)
    )
    if min(len(train), len(held_out)) < 2:
        raise DatasetRefused(
            f"objective {name!r} has labels on {len(train)} training and {len(held_out)} held-out "
            "rows, at least 2 of each are needed; check its sources in the objectives file"
        )
    truth = labels_N[held_out].double()
    held_out_weights = weights_N[held_out].double()
    before = (
        None
        if pairs is None
        else replace(pairs, differences_PH=pairs.differences_PH[~pairs.held_out_P])
    )
    candidates = _Ridge(last_NH[train], labels_N[train], weights_N[train], before)
    errors: dict[float, float] = {}
    for alpha in alphas:
        predicted = candidates.predict(last_NH[held_out], alpha)
        errors[alpha] = float(((predicted - truth) ** 2 * held_out_weights).mean())
    best = min(errors, key=lambda alpha: errors[alpha])
    predicted = candidates.predict(last_NH[held_out], best)
    every = torch.cat([train, held_out])
    weight_H, bias = _Ridge(last_NH[every], labels_N[every], weights_N[every], pairs).solve(best)
    report: dict[str, float | int] = {
        "alpha": best,
        "rows": len(every),
        "pairs": 0 if pairs is None else len(pairs.differences_PH),
        "held_out_rows": len(held_out),
        "spearman": rank_correlation(predicted, truth),
        "pearson": float(torch.corrcoef(torch.stack([predicted, truth]))[0, 1]),
        "mse": float(((predicted - truth) ** 2).mean()),
        "label_variance": float(truth.var(correction=0)),
    }
    return HeadFit(weight_H, bias, report)


class _Ridge:
    """Weighted ridge regression, decomposed once for all alphas."""

    def __init__(
        self, x_NH: Tensor, y_N: Tensor, weights_N: Tensor, pairs: PairRows | None
    ) -> None:
        weights_N = weights_N.double() / weights_N.double().mean()
        x_NH, y_N = x_NH.double(), y_N.double()
        self._mean_H = (weights_N[:, None] * x_NH).mean(dim=-2)
        self._mean_y = float((weights_N * y_N).mean())
        centred_NH = x_NH - self._mean_H
        weighted_NH = centred_NH * weights_N[:, None]
        gram_HH = centred_NH.T @ weighted_NH
        target_H = weighted_NH.T @ (y_N - self._mean_y)
        if pairs is not None and len(pairs.differences_PH):
            differences_PH = pairs.differences_PH.double()
            each = pairs.weight * len(y_N) / len(differences_PH)
            margin = pairs.margin * float(y_N.std(correction=0))
            gram_HH += each * differences_PH.T @ differences_PH
            target_H += each * margin * differences_PH.sum(dim=-2)
        self._values_H, self._vectors_HH = torch.linalg.eigh(gram_HH)
        self._projected_H = self._vectors_HH.T @ target_H

    def solve(self, alpha: float) -> tuple[Tensor, float]:
        weight_H = self._vectors_HH @ (self._projected_H / (self._values_H.clamp(min=0) + alpha))
        return weight_H, self._mean_y - float(self._mean_H @ weight_H)

    def predict(self, x_NH: Tensor, alpha: float) -> Tensor:
        weight_H, bias = self.solve(alpha)
        return x_NH.double() @ weight_H + bias


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
    salt = f"heads-{config.seed}"
    return torch.tensor(
        [in_fold(row.prompt_key, share=config.validation_share, salt=salt) for row in rows]
    )


def _source_weights(rows: Sequence[RatedResponse]) -> Tensor:
    counts = Counter(row.source for row in rows)
    return torch.tensor([counts[row.source] ** -0.5 for row in rows])
