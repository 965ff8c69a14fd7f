"""Measure a reward model: correlations, pair accuracy, baselines, and what length explains.

Everything is computed from scores of the packaged model, as it would serve them.

Axis legend: N rows, S responses of a pair, K objectives.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.models.source import checkpoint_name
from steerward.protocol.errors import DatasetRefused
from steerward.training.config import EvaluateConfig
from steerward.training.data.labels import label_matrix, load_objectives
from steerward.training.data.rows import (
    PreferencePair,
    RatedResponse,
    cluster_keys,
    is_pair_file,
    load_rows,
)
from steerward.training.embeddings import answers_of
from steerward.training.files import write_json
from steerward.training.package import UNIT_SCALE
from steerward.training.plot import plot_report
from steerward.training.scored import Scored, score_rows
from steerward.training.statistics import ClusterBootstrap, Floats, mean_within, spearman
from steerward.training.surface import surface_features

# Of a source, for a correlation of its own.
_FEWEST_ROWS = 20


def run_evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a reward model, write report.json and report.png, and return the report.

    Raises:
        SteerwardError: If the model or a file cannot be read, or no row has the split.
    """
    model = load_reward_model(config.reward_model, device=config.device, dtype=config.dtype)
    pair_files = [path for path in config.data if is_pair_file(path)]
    rating_files = [path for path in config.data if path not in pair_files]
    report: dict[str, Any] = {
        "model": checkpoint_name(config.reward_model),
        "weight_version": model.weight_version,
        "split": config.split,
        "parameters": model.num_parameters,
        "max_input_tokens": model.max_input_tokens,
    }
    pair_rows = load_rows(pair_files, PreferencePair, split=config.split)
    rating_rows = load_rows(rating_files, RatedResponse, split=config.split)
    pairs = score_rows(model, pair_rows, max_batch_tokens=config.max_batch_tokens)
    ratings = score_rows(model, rating_rows, max_batch_tokens=config.max_batch_tokens)
    if not pairs.rows and not ratings.rows:
        raise DatasetRefused(f"no row of the data has split {config.split!r}")
    if ratings.rows and config.objectives is not None:
        report["objectives"] = _objective_report(model, ratings, config.objectives)
    report["left_out"] = pairs.left_out + ratings.left_out
    if pairs.rows and pairs.scores_NS is not None:
        fit_files = config.fit_data or pair_files
        fit_rows = load_rows(fit_files, PreferencePair, split=config.fit_split)
        report["pairs"] = _pair_report(model, pairs, fit_rows, config)
    if pairs.rows and pairs.gates_NSK is not None:
        report["length"] = _length_report(model, [pairs, ratings])
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "report.json", report)
    plot_report(report, config.out / "report.png")
    return report


def _objective_report(
    model: RewardModel, ratings: Scored[RatedResponse], path: Path
) -> dict[str, Any]:
    """Return correlations and errors by objective, pooled and by source."""
    objectives = load_objectives(path)
    labels_NK = label_matrix(ratings.rows, objectives).double().numpy()
    sources = np.array([row.source for row in ratings.rows])
    report: dict[str, Any] = {}
    for k, name in enumerate(objectives):
        if name not in model.objectives.names:
            continue
        rewards_N = _on_label_scale(model, name, ratings)
        has_label = ~np.isnan(labels_NK[:, k])
        report[name] = _agreement_by_source(
            rewards_N[has_label], labels_NK[has_label, k], sources[has_label]
        )
    return report


def _on_label_scale(model: RewardModel, name: str, ratings: Scored[RatedResponse]) -> Floats:
    """Return the rewards of an objective on the 0..1 of the labels, where its scale is known."""
    index = model.objectives.index(name)
    rewards_N = ratings.rewards_NSK[:, 0, index]
    scale = model.objectives.objectives[index].rating
    if scale is None or scale.label != UNIT_SCALE:
        return rewards_N
    return scale.multiplier * rewards_N + scale.offset


def _agreement_by_source(
    rewards_N: Floats, labels_N: Floats, sources_N: NDArray[np.str_]
) -> dict[str, Any]:
    """Return the agreement pooled, by source, within sources, and what sources alone would give.

    Sources differ in their mean rating, so that knowing where a row comes from is worth
    something in the pool; within a source it is worth nothing.
    """
    entry = _agreement(rewards_N, labels_N)
    parts = {source: sources_N == source for source in sorted(set(sources_N))}
    entry["sources"] = {
        source: _agreement(rewards_N[part], labels_N[part])
        for source, part in parts.items()
        if part.sum() >= _FEWEST_ROWS
    }
    entry["spearman_within_sources"] = mean_within(
        {name: (one["rows"], one["spearman"]) for name, one in entry["sources"].items()}
    )
    means_N = np.zeros(len(labels_N))
    for part in parts.values():
        means_N[part] = labels_N[part].mean()
    entry["spearman_of_source_means"] = spearman(means_N, labels_N)
    return entry


def _agreement(rewards_N: Floats, labels_N: Floats) -> dict[str, Any]:
    is_constant = len(labels_N) < 3 or np.ptp(labels_N) == 0 or np.ptp(rewards_N) == 0
    return {
        "rows": len(labels_N),
        "spearman": None if is_constant else spearman(rewards_N, labels_N),
        "pearson": None if is_constant else float(np.corrcoef(rewards_N, labels_N)[0, 1]),
        "mse": float(((rewards_N - labels_N) ** 2).mean()),
        "label_variance": float(labels_N.var()),
    }


def _pair_report(
    model: RewardModel,
    pairs: Scored[PreferencePair],
    fit_rows: list[PreferencePair],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Return accuracies of the score and of every baseline, pooled and by source."""
    bootstrap = ClusterBootstrap(
        cluster_keys(pairs.rows), resamples=config.bootstrap, seed=config.seed
    )
    assert pairs.scores_NS is not None
    margins = {
        "score": _margin(pairs.scores_NS),
        **_baselines(model, pairs, fit_rows, config),
    }
    sources = np.array([pair.source for pair in pairs.rows])
    lengths_N = _length_differences(pairs.rows)
    report: dict[str, Any] = {}
    for name, margins_N in margins.items():
        report[name] = asdict(bootstrap.accuracy(margins_N))
        # What is right because it goes for length is right for a reason nobody wants.
        report[name]["spearman_with_length"] = spearman(margins_N, lengths_N)
        report[name]["sources"] = {
            source: asdict(bootstrap.accuracy(margins_N, sources == source))
            for source in sorted(set(sources))
        }
        if name != "score":
            difference, low, high = bootstrap.difference(margins["score"], margins_N)
            report[name]["score_minus_this"] = {"value": difference, "low": low, "high": high}
    return report


def _baselines(
    model: RewardModel,
    pairs: Scored[PreferencePair],
    fit_rows: list[PreferencePair],
    config: EvaluateConfig,
) -> dict[str, Floats]:
    """Return the margins of everything the score has to beat."""
    margins = {
        "longer wins": np.array([float(len(p.chosen) - len(p.rejected)) for p in pairs.rows])
    }
    if fit_rows:
        margins["16 surface features"] = _fitted_margins(
            _surface_differences(fit_rows), _surface_differences(pairs.rows)
        )
    names = model.objectives.names
    if len(names) == 1:
        return margins
    transform_KK = model.transform.double().cpu().numpy()
    differences_NK = pairs.rewards_NSK[:, 0] - pairs.rewards_NSK[:, 1]
    transformed_NK = differences_NK @ transform_KK
    margins["mean of standardised rewards"] = (differences_NK / _spread(pairs)).mean(axis=-1)
    margins["uniform gates"] = transformed_NK.mean(axis=-1)
    # The best one on the very split that is measured: this favours the baseline.
    best = max(range(len(names)), key=lambda k: float((differences_NK[:, k] > 0).mean()))
    margins[f"best single objective ({names[best]})"] = differences_NK[:, best]
    if fit_rows and config.max_fit_pairs:
        drawn = random.Random(config.seed).sample(
            fit_rows, min(config.max_fit_pairs, len(fit_rows))
        )
        fit = score_rows(
            model,
            drawn,
            max_batch_tokens=config.max_batch_tokens,
            title="scoring pairs for the global weighting",
        )
        fit_NK = (fit.rewards_NSK[:, 0] - fit.rewards_NSK[:, 1]) @ transform_KK
        margins["one global weighting"] = _fitted_margins(fit_NK, transformed_NK)
    return margins


def _spread(pairs: Scored[PreferencePair]) -> Floats:
    """Return the standard deviation of each objective's reward over all responses."""
    return pairs.rewards_NSK.std(axis=(0, 1)).clip(1e-9)


def _surface_differences(pairs: Sequence[PreferencePair]) -> Floats:
    rows: list[Floats] = []
    for pair in pairs:
        prompt = pair.context[-1]["content"]
        chosen = np.array(surface_features(prompt, pair.chosen))
        rows.append(chosen - np.array(surface_features(prompt, pair.rejected)))
    return np.stack(rows)


def _fitted_margins(fit_NF: Floats, differences_NF: Floats) -> Floats:
    """Return margins of the best linear weighting of feature differences (logistic regression)."""
    both = np.concatenate([fit_NF, -fit_NF])
    truth = np.concatenate([np.ones(len(fit_NF)), np.zeros(len(fit_NF))])
    scaler = StandardScaler(with_mean=False).fit(both)
    weighting = LogisticRegression(fit_intercept=False, max_iter=1000).fit(
        scaler.transform(both), truth
    )
    return scaler.transform(differences_NF) @ weighting.coef_[0]


def _length_report(model: RewardModel, parts: Sequence[Scored[Any]]) -> dict[str, Any]:
    """Return how much the score goes with length, with and without the transform's penalties.

    Without means the same gates and the same scale of each objective (the transform's diagonal),
    but nothing taken off for other objectives. Spearman with the log of characters, over all
    responses and within the pairs.
    """
    transform_KK = model.transform.double().cpu().numpy()
    scales_K = np.diag(transform_KK)
    lengths: list[float] = []
    scores: list[Floats] = []
    plain: list[Floats] = []
    for part in parts:
        if part.rows:
            lengths.extend(np.log1p(len(a)) for row in part.rows for a in answers_of(row))
            scores.append(_scores(part).ravel())
            plain.append(_scores_at(part, scales_K).ravel())
    pairs = parts[0]
    margin_N, plain_N = _margin(_scores(pairs)), _margin(_scores_at(pairs, scales_K))
    length_N = _length_differences(pairs.rows)
    return {
        "responses": len(lengths),
        "spearman_with_transform": spearman(np.concatenate(scores), lengths),
        "spearman_without_transform": spearman(np.concatenate(plain), lengths),
        "pair_margin_spearman_with_transform": spearman(margin_N, length_N),
        "pair_margin_spearman_without_transform": spearman(plain_N, length_N),
        "accuracy_with_transform": float((margin_N > 0).mean()),
        "accuracy_without_transform": float((plain_N > 0).mean()),
    }


def _length_differences(pairs: Sequence[PreferencePair]) -> Floats:
    """Return by how much longer the chosen response is, in logarithms of characters."""
    return np.array([np.log1p(len(p.chosen)) - np.log1p(len(p.rejected)) for p in pairs])


def _scores(part: Scored[Any]) -> Floats:
    assert part.scores_NS is not None
    return part.scores_NS


def _scores_at(part: Scored[Any], scales_K: Floats) -> Floats:
    """Return what the gates would give if each reward were only brought to its scale."""
    assert part.gates_NSK is not None
    return (part.rewards_NSK * scales_K * part.gates_NSK).sum(axis=-1)


def _margin(scores_NS: Floats) -> Floats:
    return scores_NS[:, 0] - scores_NS[:, 1]


def summary(report: Mapping[str, Any]) -> str:
    """Return the report as lines for people."""
    lines = [f"{report['model']} ({report['weight_version']}), split {report['split']}"]
    if report["left_out"]:
        lines.append(f"  {report['left_out']} rows are over the length limit and left out")
    for name, entry in report.get("objectives", {}).items():
        if entry["spearman"] is not None:
            within = entry["spearman_within_sources"]
            shown = "" if within is None else f", within sources {within:.3f}"
            pooled = f"Spearman {entry['spearman']:.3f}{shown}"
            lines.append(f"  {name:18} {pooled}  ({entry['rows']} rows)")
    for name, entry in report.get("pairs", {}).items():
        interval = f"[{entry['low']:.3f}, {entry['high']:.3f}]"
        lines.append(f"  {name:40} {entry['value']:.3f} {interval}  ({entry['pairs']} pairs)")
    if length := report.get("length"):
        lines.append(
            f"  score and length: {length['spearman_with_transform']:.3f}, without the transform "
            f"{length['spearman_without_transform']:.3f}"
        )
    return "\n".join(lines)


def read_report(path: Path) -> dict[str, Any]:
    """Return a report that `run_evaluate` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
