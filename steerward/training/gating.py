"""Stage 2 of ArmoRM (arXiv:2406.12845): the gate, trained on exactly what is served.

Pairs of preferred and rejected responses; the score of each is the gated sum of its transformed
rewards, and the loss is Bradley-Terry's, ``-log sigmoid(s_chosen - s_rejected)``. Both responses
of a pair share their prompt's gates.

Axis legend: N pairs, S the two responses of a pair, K objectives, H hidden, J judged steps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus
from tqdm import tqdm

from steerward.gating.network import GatingNetwork
from steerward.gating.transform import TransformFit, fit_transform, rank_correlation
from steerward.models.native import gate_section, gate_tensors, read_gate
from steerward.models.tensors import TensorFiles
from steerward.protocol.errors import DatasetRefused
from steerward.training.config import GatingConfig
from steerward.training.data.rows import (
    PreferencePair,
    RatedResponse,
    held_out,
    is_pair_file,
)
from steerward.training.embeddings import load_embedded
from steerward.training.files import file_digest, write_json, write_tensors
from steerward.training.heads import FittedHeads, read_heads

GATE_FILE = "gate.safetensors"
_NUM_PROBES = 32
REPORT_FILE = "gate.json"


@dataclass(frozen=True, slots=True)
class GatingData:
    """Pairs as the gate sees them."""

    prompts_NH: Tensor
    rewards_NSK: Tensor
    """Rewards before the transform: chosen, then rejected."""
    held_out_N: Tensor
    """Pairs that say when to stop."""
    weights_N: Tensor
    """Chance of a pair to be drawn, up to a factor."""

    def part(self, mask_N: Tensor) -> GatingData:
        """Return the pairs of a mask."""
        return GatingData(
            self.prompts_NH[mask_N],
            self.rewards_NSK[mask_N],
            self.held_out_N[mask_N],
            self.weights_N[mask_N],
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """A training pair with its training-time scores; packaging compares them with served ones."""

    file: str
    row: int
    """Number of the row in its file."""
    scores: list[float]
    """Of chosen and rejected."""


@dataclass(frozen=True, slots=True)
class GateFit:
    """A gate trained on all pairs, and what one trained without the held-out pairs did on them."""

    gate: GatingNetwork
    steps: int
    """After how many steps the held-out loss was lowest."""
    accuracy: float
    """Of held-out pairs then."""
    held_out_scores_NS: Tensor
    """Scores of the held-out pairs then, by the gate that had not seen them."""
    history: list[dict[str, float]]


def run_gating(config: GatingConfig) -> tuple[float, float]:
    """Fit the transform, train the gate, and write both with a report.

    Rewards are centred on the mean of the reference set; packaging moves the heads' biases by
    it, and says in each rating scale how to come back.

    Returns:
        Held-out accuracy of the gate, and of one trained without the transform.

    Raises:
        SteerwardError: If data, vectors or heads are absent, do not fit together, or an
            objective cannot be freed of verbosity.
    """
    fitted = read_heads(config.heads)
    version = fitted.weight_version
    if config.verbosity not in fitted.names:
        raise DatasetRefused(
            f"there is no objective {config.verbosity!r} among the heads: {', '.join(fitted.names)}"
        )
    reference_NK = _reference_rewards(config, fitted.heads, version)
    mean_K = reference_NK.mean(dim=-2)
    pairs = _load_pairs(config, version)
    data = _gating_data(config, pairs, fitted, mean_K)
    transform = _fit_transform(config, reference_NK, fitted.names)
    fit = train_gate(data, transform.transform_KK, config)
    # What freeing the score of verbosity costs: the same training without the penalties.
    scales_K = reference_NK.std(dim=-2, correction=0) if config.standardise else torch.ones(())
    plain = train_gate(data, torch.eye(len(fitted.names)) / scales_K, config)
    config.out.mkdir(parents=True, exist_ok=True)
    tensors = gate_tensors(fit.gate) | {"transform.matrix": transform.transform_KK}
    write_tensors(config.out / GATE_FILE, tensors)
    verbosity_NS = data.rewards_NSK[data.held_out_N][..., fitted.names.index(config.verbosity)]
    write_json(
        config.out / REPORT_FILE,
        {
            "weight_version": version,
            "pairs": len(pairs.rows),
            "steps": fit.steps,
            "held_out_accuracy": fit.accuracy,
            "held_out_accuracy_without_transform": plain.accuracy,
            "held_out_verbosity_correlation": rank_correlation(
                fit.held_out_scores_NS.flatten(), verbosity_NS.flatten()
            ),
            "held_out_verbosity_correlation_without_transform": rank_correlation(
                plain.held_out_scores_NS.flatten(), verbosity_NS.flatten()
            ),
            "reference": _moments(reference_NK, fitted.names),
            "transform": {
                "verbosity": config.verbosity,
                "threshold": config.correlation_threshold,
                "standardised": config.standardise,
                "reference_responses": len(reference_NK),
                "reference_sha256": {
                    "/".join(path.parts[-2:]): file_digest(path)
                    for path in config.reference or config.data
                },
                "penalties": transform.penalties,
                "correlation_before": transform.correlation_before,
                "correlation_after": transform.correlation_after,
            },
            "gate": gate_section(fit.gate),
            "probes": [
                asdict(probe) for probe in _probes(fit.gate, pairs, fitted.heads, mean_K, transform)
            ],
            "history": fit.history,
            "config": json.loads(config.model_dump_json()),
        },
    )
    return fit.accuracy, plain.accuracy


def _fit_transform(
    config: GatingConfig, reference_NK: Tensor, names: Sequence[str]
) -> TransformFit:
    try:
        return fit_transform(
            reference_NK,
            names=names,
            verbosity=config.verbosity,
            threshold=config.correlation_threshold,
            standardise=config.standardise,
        )
    except ValueError as error:
        raise DatasetRefused(str(error)) from error


def train_gate(data: GatingData, transform_KK: Tensor, config: GatingConfig) -> GateFit:
    """Return a gate that was trained on all pairs for as long as held-out ones gained by it.

    First a gate is trained without the held-out pairs and judged on them at regular steps; then
    one is trained on all pairs, for as many steps as gave the lowest loss.
    """
    every = max(1, config.steps // 40)
    points = sorted({*range(every, config.steps + 1, every), config.steps})
    judged = data.part(data.held_out_N)
    judged_JNS = torch.stack(
        [
            _scores(gate, judged, transform_KK)
            for step, gate in _steps(data.part(~data.held_out_N), transform_KK, config, "gate")
            if step in points
        ]
    )
    margins_JN = judged_JNS[..., 0] - judged_JNS[..., 1]
    losses_J = (softplus(-margins_JN) * judged.weights_N / judged.weights_N.sum()).sum(dim=-1)
    accuracies_J = (margins_JN > 0).float().mean(dim=-1)
    best = int(losses_J.argmin())
    gate = next(
        gate for step, gate in _steps(data, transform_KK, config, "gate") if step == points[best]
    )
    history = [
        {"step": step, "held_out_loss": float(loss), "held_out_accuracy": float(accuracy)}
        for step, loss, accuracy in zip(points, losses_J, accuracies_J, strict=True)
    ]
    return GateFit(gate.eval(), points[best], float(accuracies_J[best]), judged_JNS[best], history)


def _steps(
    data: GatingData, transform_KK: Tensor, config: GatingConfig, title: str
) -> Iterator[tuple[int, GatingNetwork]]:
    """Train a gate, and yield it after every step."""
    torch.manual_seed(config.seed)
    gate = GatingNetwork.random(
        hidden_size=data.prompts_NH.shape[-1],
        gate_hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_objectives=transform_KK.shape[-1],
        temperature=config.temperature,
        dropout=config.dropout,
        # Rewards lie on 0..1, so that unscaled differences would give Bradley-Terry no slope.
        scale=float(transform_KK.shape[-1]),
    )
    optimiser = torch.optim.AdamW(
        gate.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    generator = torch.Generator().manual_seed(config.seed)
    for step in tqdm(range(1, config.steps + 1), desc=title, unit="step", mininterval=1.0):
        rows = torch.multinomial(
            data.weights_N, config.batch_size, replacement=True, generator=generator
        )
        gate.train()
        margins_N = margins(gate, data.prompts_NH[rows], data.rewards_NSK[rows], transform_KK)
        optimiser.zero_grad()
        softplus(-margins_N).mean().backward()
        optimiser.step()
        schedule.step()
        yield step, gate


def margins(
    gate: GatingNetwork, prompts_NH: Tensor, rewards_NSK: Tensor, transform_KK: Tensor
) -> Tensor:
    """Return by how much the chosen response of each pair outscores the rejected one.

    One gate vector a prompt, over the objectives; the transform applies to the rewards as it
    does when scores are served.
    """
    scores_NS = scores(rewards_NSK, gate(prompts_NH), transform_KK)
    return scores_NS[:, 0] - scores_NS[:, 1]


def scores(rewards_NSK: Tensor, gates_NK: Tensor, transform_KK: Tensor) -> Tensor:
    """Return the gated scores of the responses of pairs, (N, S)."""
    return ((rewards_NSK @ transform_KK) * gates_NK[:, None]).sum(dim=-1)


@torch.no_grad()
def _scores(gate: GatingNetwork, data: GatingData, transform_KK: Tensor) -> Tensor:
    gate.eval()
    return scores(data.rewards_NSK, gate(data.prompts_NH), transform_KK)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs with their vectors."""

    rows: list[PreferencePair]
    places: list[tuple[str, int]]
    """File and row of each."""
    last_NSH: Tensor
    gating_NH: Tensor

    def part(self, mask_N: Tensor) -> _Pairs:
        kept: list[int] = torch.nonzero(mask_N).flatten().tolist()
        return _Pairs(
            [self.rows[n] for n in kept],
            [self.places[n] for n in kept],
            self.last_NSH[kept],
            self.gating_NH[kept],
        )


def _load_pairs(config: GatingConfig, version: str) -> _Pairs:
    rows: list[PreferencePair] = []
    places: list[tuple[str, int]] = []
    last: list[Tensor] = []
    gating: list[Tensor] = []
    for path in config.data:
        file = load_embedded(path, PreferencePair, config.embeddings, weight_version=version)
        rows.extend(file.rows)
        places.extend((str(path.resolve()), number) for number in file.numbers)
        last.append(file.last_NSH)
        gating.append(file.gating_NH)
    return _Pairs(rows, places, torch.cat(last), torch.cat(gating))


def _gating_data(
    config: GatingConfig, pairs: _Pairs, fitted: FittedHeads, mean_K: Tensor
) -> GatingData:
    """Return the pairs as the gate sees them."""
    held_out_N = torch.tensor(held_out(pairs.rows, **fitted.fold), dtype=torch.bool)
    if not held_out_N.any() or held_out_N.all():
        raise DatasetRefused(f"{len(pairs.rows)} training pairs are too few to hold some out")
    # The heads have seen the held-out pairs; those fitted without them have not.
    rewards_NSK = torch.where(
        held_out_N[:, None, None],
        _rewards(fitted.selection_heads, pairs.last_NSH),
        _rewards(fitted.heads, pairs.last_NSH),
    )
    counts = Counter(pair.source for pair in pairs.rows)
    weights = [
        counts[pair.source] ** -0.5 if config.balance_sources else 1.0 for pair in pairs.rows
    ]
    # Centred, so that which objectives a prompt's gates prefer sets no level of its scores.
    return GatingData(pairs.gating_NH, rewards_NSK - mean_K, held_out_N, torch.tensor(weights))


@torch.no_grad()
def _rewards(heads: torch.nn.Module, last_NSH: Tensor) -> Tensor:
    return heads(last_NSH.flatten(0, 1)).unflatten(0, last_NSH.shape[:2])


@torch.no_grad()
def _reference_rewards(config: GatingConfig, heads: torch.nn.Module, version: str) -> Tensor:
    """Return the raw rewards of all training responses of the reference set."""
    rewards: list[Tensor] = []
    for path in config.reference or config.data:
        schema = PreferencePair if is_pair_file(path) else RatedResponse
        file = load_embedded(path, schema, config.embeddings, weight_version=version)
        rewards.append(heads(file.last_NSH.flatten(0, 1)))
    return torch.cat(rewards)


def _moments(rewards_NK: Tensor, names: Sequence[str]) -> dict[str, dict[str, float]]:
    rewards_NK = rewards_NK.double()
    means = rewards_NK.mean(dim=-2).tolist()
    stds = rewards_NK.std(dim=-2, correction=0).tolist()
    return {
        name: {"mean": mean, "std": std} for name, mean, std in zip(names, means, stds, strict=True)
    }


@torch.no_grad()
def _probes(
    gate: GatingNetwork, pairs: _Pairs, heads: torch.nn.Module, mean_K: Tensor, fit: TransformFit
) -> list[Probe]:
    rows = range(0, len(pairs.rows), max(1, len(pairs.rows) // _NUM_PROBES))
    kept = torch.zeros(len(pairs.rows), dtype=torch.bool)
    kept[list(rows)] = True
    drawn = pairs.part(kept)
    rewards_NSK = _rewards(heads, drawn.last_NSH) - mean_K
    scores_NS = scores(rewards_NSK, gate(drawn.gating_NH), fit.transform_KK)
    return [
        Probe(file, number, of_pair)
        for (file, number), of_pair in zip(drawn.places, scores_NS.tolist(), strict=True)
    ]


def read_gating(folder: Path) -> tuple[GatingNetwork, Tensor, Mapping[str, Any]]:
    """Return the gate, the transform and the report that `run_gating` wrote.

    Raises:
        DatasetRefused: If there are none.
    """
    if not (folder / REPORT_FILE).is_file():
        raise DatasetRefused(f"there is no gate in {folder}; run `steerward train gating`")
    report = json.loads((folder / REPORT_FILE).read_text())
    files = TensorFiles(folder)
    num_objectives = len(report["reference"])
    transform_KK = files.take("transform.matrix", (num_objectives, num_objectives))
    width = files.take("gate.layers.0.weight", (None, None)).shape[1]
    return read_gate(report["gate"], files, width, num_objectives).eval(), transform_KK, report
