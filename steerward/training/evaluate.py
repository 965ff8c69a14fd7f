"""Measure a reward model: correlations, pair accuracy, baselines, and what length explains.

Everything is computed from scores of the packaged model, as it would serve them.

Axis legend: N rows, S responses of a pair, K objectives.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import DatasetRefused, InputTooLong
from steerward.training.config import EvaluateConfig
from steerward.training.data.labels import label_matrix, load_objectives
from steerward.training.data.rows import (
    PreferencePair,
    RatedResponse,
    Row,
    is_pair_file,
    load_rows,
)
from steerward.training.embeddings import answers_of, batches_of
from steerward.training.files import write_json
from steerward.training.plot import plot_report
from steerward.training.statistics import ClusterBootstrap, Floats, spearman
from steerward.training.surface import surface_features


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with what the model said of their responses."""

    rows: list[Any]
    rewards_NSK: Floats
    scores_NS: Floats
    """The checkpoint's own score."""
    gates_NK: Floats


def run_evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a reward model, write report.json and report.png, and return the report.

    Raises:
        SteerwardError: If the model or a file cannot be read, or no row has the split.
    """
    model = load_reward_model(config.reward_model, device=config.device, dtype=config.dtype)
    pair_files = [path for path in config.data if is_pair_file(path)]
    rating_files = [path for path in config.data if path not in pair_files]
    report: dict[str, Any] = {
        "model": config.reward_model,
        "weight_version": model.weight_version,
        "split": config.split,
        "parameters": model.num_parameters,
        "max_input_tokens": model.max_input_tokens,
    }
    pairs = _score(model, load_rows(pair_files, PreferencePair, split=config.split), config)
    ratings = _score(model, load_rows(rating_files, RatedResponse, split=config.split), config)
    if not pairs.rows and not ratings.rows:
        raise DatasetRefused(f"no row of the data has split {config.split!r}")
    if ratings.rows and config.objectives is not None:
        report["objectives"] = _objective_report(model, ratings, config.objectives)
    if pairs.rows and model.gate is not None:
        fit_files = config.fit_data or pair_files
        fit_rows = load_rows(fit_files, PreferencePair, split=config.fit_split)
        report["pairs"] = _pair_report(model, pairs, fit_rows, config)
        report["length"] = _length_report(model, [pairs, ratings])
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "report.json", report)
    plot_report(report, config.out / "report.png")
    return report


def _objective_report(model: RewardModel, ratings: Scored, path: Path) -> dict[str, Any]:
    """Return correlations and errors by objective, pooled and by source."""
    objectives = load_objectives(path)
    labels_NK = label_matrix(ratings.rows, objectives).double().numpy()
    sources = np.array([row.source for row in ratings.rows])
    report: dict[str, Any] = {}
    for k, name in enumerate(objectives):
        if name not in model.objectives.names:
            continue
        rewards_N = ratings.rewards_NSK[:, 0, model.objectives.index(name)]
        has_label = ~np.isnan(labels_NK[:, k])
        entry = _agreement(rewards_N[has_label], labels_NK[has_label, k])
        entry["sources"] = {
            source: _agreement(rewards_N[chosen], labels_NK[chosen, k])
            for source in sorted(set(sources[has_label]))
            if (chosen := has_label & (sources == source)).sum() >= 20
        }
        report[name] = entry
    return report


def _agreement(rewards_N: Floats, labels_N: Floats) -> dict[str, Any]:
    is_constant = len(labels_N) < 3 or np.ptp(labels_N) == 0
    return {
        "rows": len(labels_N),
        "spearman": None if is_constant else spearman(rewards_N, labels_N),
        "pearson": None if is_constant else float(np.corrcoef(rewards_N, labels_N)[0, 1]),
        "mse": float(((rewards_N - labels_N) ** 2).mean()),
        "label_variance": float(labels_N.var()),
    }


def _pair_report(
    model: RewardModel, pairs: Scored, fit_rows: list[PreferencePair], config: EvaluateConfig
) -> dict[str, Any]:
    """Return accuracies of the score and of every baseline, pooled and by source."""
    bootstrap = ClusterBootstrap(
        [pair.prompt_key for pair in pairs.rows], resamples=config.bootstrap, seed=config.seed
    )
    margins = {
        "gated score": _margin(pairs.scores_NS),
        **_baselines(model, pairs, fit_rows, config),
    }
    sources = np.array([pair.source for pair in pairs.rows])
    report: dict[str, Any] = {}
    for name, margins_N in margins.items():
        report[name] = asdict(bootstrap.accuracy(margins_N))
        report[name]["sources"] = {
            source: asdict(bootstrap.accuracy(margins_N, sources == source))
            for source in sorted(set(sources))
        }
        if name != "gated score":
            difference, low, high = bootstrap.difference(margins["gated score"], margins_N)
            report[name]["gated_minus_this"] = {"value": difference, "low": low, "high": high}
    return report


def _baselines(
    model: RewardModel, pairs: Scored, fit_rows: list[PreferencePair], config: EvaluateConfig
) -> dict[str, Floats]:
    """Return the margins of everything the gated score has to beat."""
    transform_KK = model.transform.double().cpu().numpy()
    names = model.objectives.names
    differences_NK = pairs.rewards_NSK[:, 0] - pairs.rewards_NSK[:, 1]
    transformed_NK = differences_NK @ transform_KK
    margins = {
        "longer wins": np.array([float(len(p.chosen) - len(p.rejected)) for p in pairs.rows]),
        "uniform gates": transformed_NK.mean(axis=-1),
    }
    # The best one on the very split that is measured: this favours the baseline.
    best = max(range(len(names)), key=lambda k: float((differences_NK[:, k] > 0).mean()))
    margins[f"best single objective ({names[best]})"] = differences_NK[:, best]
    if fit_rows:
        margins["16 surface features"] = _fitted_margins(
            _surface_differences(fit_rows), _surface_differences(pairs.rows)
        )
    if fit_rows and config.max_fit_pairs:
        drawn = random.Random(config.seed).sample(
            fit_rows, min(config.max_fit_pairs, len(fit_rows))
        )
        fit = _score(model, drawn, config, title="scoring pairs for the global weighting")
        fit_NK = (fit.rewards_NSK[:, 0] - fit.rewards_NSK[:, 1]) @ transform_KK
        margins["one global weighting"] = _fitted_margins(fit_NK, transformed_NK)
    return margins


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


def _length_report(model: RewardModel, parts: Sequence[Scored]) -> dict[str, Any]:
    """Return how much the score goes with length, with and without the reward transform.

    Without means the same gates on the raw rewards. Spearman with the log of characters, over
    all responses and within the pairs.
    """
    transform_KK = model.transform.double().cpu().numpy()
    lengths: list[float] = []
    scores: list[float] = []
    plain: list[float] = []
    for part in parts:
        for row, scores_S, rewards_SK, gates_K in zip(
            part.rows, part.scores_NS, part.rewards_NSK, part.gates_NK, strict=True
        ):
            lengths.extend(float(np.log1p(len(answer))) for answer in answers_of(row))
            scores.extend(scores_S.tolist())
            plain.extend((rewards_SK @ gates_K).tolist())
    pairs = parts[0]
    raw_NS = (pairs.rewards_NSK * pairs.gates_NK[:, None]).sum(axis=-1)
    length_N = np.array([np.log1p(len(p.chosen)) - np.log1p(len(p.rejected)) for p in pairs.rows])
    return {
        "responses": len(lengths),
        "spearman_with_transform": spearman(scores, lengths),
        "spearman_without_transform": spearman(plain, lengths),
        "pair_margin_spearman_with_transform": spearman(_margin(pairs.scores_NS), length_N),
        "pair_margin_spearman_without_transform": spearman(_margin(raw_NS), length_N),
        "accuracy_with_transform": float((_margin(pairs.scores_NS) > 0).mean()),
        "accuracy_without_transform": float((_margin(raw_NS) > 0).mean()),
        "transform_verbosity_column_is_zero": bool(
            (transform_KK == 0).all(axis=0).any() if len(transform_KK) else False
        ),
    }


def _margin(scores_NS: Floats) -> Floats:
    return scores_NS[:, 0] - scores_NS[:, 1]


def _score(
    model: RewardModel, rows: Sequence[Row], config: EvaluateConfig, *, title: str = "scoring"
) -> Scored:
    """Score all responses of rows; rows over the length limit are left out and counted."""
    kept: list[Row] = []
    groups: list[Group] = []
    for row in rows:
        try:
            conversations = model.encode(row.context, answers_of(row))
        except InputTooLong:
            continue
        (group,) = group_conversations(conversations)
        kept.append(row)
        groups.append(group)
    num_answers = len(groups[0].suffixes) if groups else 1
    num_objectives = len(model.objectives)
    rewards_NSK = torch.zeros(len(kept), num_answers, num_objectives)
    scores_NS = torch.zeros(len(kept), num_answers)
    gates_NK = torch.zeros(len(kept), num_objectives)
    with tqdm(total=len(groups), desc=title, unit="row", mininterval=1.0) as bar:
        for batch in batches_of(groups, max_tokens=config.max_batch_tokens):
            output = model.score([groups[i] for i in batch])
            rewards_NSK[batch] = output.rewards_NK.unflatten(0, (len(batch), num_answers))
            if output.scores_N is not None and output.gates is not None:
                scores_NS[batch] = output.scores_N.unflatten(0, (len(batch), num_answers))
                gates_NK[batch] = output.gates[: len(batch)]
            bar.update(len(batch))
    return Scored(kept, _numbers(rewards_NSK), _numbers(scores_NS), _numbers(gates_NK))


def _numbers(tensor: Tensor) -> Floats:
    return tensor.double().numpy()


def summary(report: Mapping[str, Any]) -> str:
    """Return the report as lines for people."""
    lines = [f"{report['model']} ({report['weight_version']}), split {report['split']}"]
    for name, entry in report.get("objectives", {}).items():
        if entry["spearman"] is not None:
            lines.append(f"  {name:18} Spearman {entry['spearman']:.3f}  ({entry['rows']} rows)")
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
