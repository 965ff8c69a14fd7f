"""Stage 2 of ArmoRM (arXiv:2406.12845): the gate, trained on exactly what is served.

Pairs of preferred and rejected responses; the score of each is the gated sum of its transformed
rewards, and the loss is Bradley-Terry's, ``-log sigmoid(s_chosen - s_rejected)``. Both responses
of a pair share their prompt's gates.

Axis legend: N pairs, S the two responses of a pair, K objectives, H hidden.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus
from tqdm import tqdm

from steerward.gating.network import GatingNetwork
from steerward.gating.transform import TransformFit, fit_transform
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
from steerward.training.files import write_json, write_tensors
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
    """A trained gate, and its accuracy on held-out prompts step by step."""

    gate: GatingNetwork
    accuracy: float
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
    places, data = _load_pairs(config, fitted)
    reference_NK = _reference_rewards(config, fitted.heads, version)
    # Centred, so that which objectives a prompt's gates prefer sets no level of its scores.
    data = replace(data, rewards_NSK=data.rewards_NSK - reference_NK.mean(dim=-2))
    if config.verbosity not in fitted.names:
        raise DatasetRefused(
            f"there is no objective {config.verbosity!r} among the heads: {', '.join(fitted.names)}"
        )
    try:
        transform = fit_transform(
            reference_NK,
            names=fitted.names,
            verbosity=config.verbosity,
            threshold=config.correlation_threshold,
            standardise=config.standardise,
        )
    except ValueError as error:
        raise DatasetRefused(str(error)) from error
    fit = train_gate(data, transform.transform_KK, config)
    # What freeing the score of verbosity costs: the same training without the penalties.
    scales_K = reference_NK.std(dim=-2, correction=0) if config.standardise else torch.ones(())
    plain = train_gate(data, torch.eye(len(fitted.names)) / scales_K, config)
    config.out.mkdir(parents=True, exist_ok=True)
    tensors = gate_tensors(fit.gate) | {"transform.matrix": transform.transform_KK}
    write_tensors(config.out / GATE_FILE, tensors)
    write_json(
        config.out / REPORT_FILE,
        {
            "weight_version": version,
            "pairs": len(places),
            "held_out_accuracy": fit.accuracy,
            "held_out_accuracy_without_transform": plain.accuracy,
            "reference": _moments(reference_NK, fitted.names),
            "transform": {
                "verbosity": config.verbosity,
                "threshold": config.correlation_threshold,
                "standardised": config.standardise,
                "reference_responses": len(reference_NK),
                "penalties": transform.penalties,
                "correlation_before": transform.correlation_before,
                "correlation_after": transform.correlation_after,
            },
            "gate": gate_section(fit.gate),
            "probes": [asdict(probe) for probe in _probes(fit.gate, places, data, transform)],
            "history": fit.history,
            "config": json.loads(config.model_dump_json()),
        },
    )
    return fit.accuracy, plain.accuracy


def train_gate(data: GatingData, transform_KK: Tensor, config: GatingConfig) -> GateFit:
    """Return the gate with the best held-out loss among its evaluations."""
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
    train, held_out = data.part(~data.held_out_N), data.part(data.held_out_N)
    generator = torch.Generator().manual_seed(config.seed)
    best: tuple[float, dict[str, Tensor], float] | None = None
    history: list[dict[str, float]] = []
    for step in tqdm(range(1, config.steps + 1), desc="gate", unit="step", mininterval=1.0):
        rows = torch.multinomial(
            train.weights_N, config.batch_size, replacement=True, generator=generator
        )
        gate.train()
        margins_N = margins(gate, train.prompts_NH[rows], train.rewards_NSK[rows], transform_KK)
        loss = softplus(-margins_N).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % max(1, config.steps // 40) == 0 or step == config.steps:
            held_out_loss, accuracy = _evaluate(gate, held_out, transform_KK)
            history.append(
                {
                    "step": step,
                    "loss": float(loss.detach()),
                    "held_out_loss": held_out_loss,
                    "held_out_accuracy": accuracy,
                }
            )
            if best is None or held_out_loss < best[0]:
                best = (held_out_loss, copy.deepcopy(gate.state_dict()), accuracy)
    assert best is not None
    gate.load_state_dict(best[1])
    return GateFit(gate.eval(), best[2], history)


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
def _evaluate(gate: GatingNetwork, data: GatingData, transform_KK: Tensor) -> tuple[float, float]:
    gate.eval()
    margins_N = margins(gate, data.prompts_NH, data.rewards_NSK, transform_KK)
    weights_N = data.weights_N / data.weights_N.sum()
    loss = float((softplus(-margins_N) * weights_N).sum())
    return loss, float((margins_N > 0).float().mean())


@torch.no_grad()
def _load_pairs(
    config: GatingConfig, fitted: FittedHeads
) -> tuple[list[tuple[str, int]], GatingData]:
    """Return the file and row of each pair, and the pairs as the gate sees them."""
    pairs: list[PreferencePair] = []
    places: list[tuple[str, int]] = []
    prompts: list[Tensor] = []
    vectors: list[Tensor] = []
    for path in config.data:
        file = load_embedded(
            path, PreferencePair, config.embeddings, weight_version=fitted.weight_version
        )
        pairs.extend(file.rows)
        places.extend((str(path.resolve()), number) for number in file.numbers)
        prompts.append(file.gating_NH)
        vectors.append(file.last_NSH)
    last_NSH = torch.cat(vectors)
    held_out_N = torch.tensor(held_out(pairs, **fitted.fold))
    if not held_out_N.any() or held_out_N.all():
        raise DatasetRefused(f"{len(pairs)} training pairs are too few to hold some out")
    rewards_NSK = fitted.heads(last_NSH.flatten(0, 1)).unflatten(0, last_NSH.shape[:2])
    # The heads have seen the held-out pairs; those fitted without them have not.
    unseen_NSH = last_NSH[held_out_N]
    rewards_NSK[held_out_N] = fitted.selection_heads(unseen_NSH.flatten(0, 1)).unflatten(
        0, unseen_NSH.shape[:2]
    )
    counts = Counter(pair.source for pair in pairs)
    weights = [counts[pair.source] ** -0.5 if config.balance_sources else 1.0 for pair in pairs]
    return places, GatingData(torch.cat(prompts), rewards_NSK, held_out_N, torch.tensor(weights))


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
    gate: GatingNetwork, places: Sequence[tuple[str, int]], data: GatingData, fit: TransformFit
) -> list[Probe]:
    # Held-out pairs have rewards of other heads than those that are served.
    rows: list[int] = torch.nonzero(~data.held_out_N).flatten().tolist()
    rows = rows[:: max(1, len(rows) // _NUM_PROBES)]
    gates_NK = gate(data.prompts_NH)
    scores_NS = scores(data.rewards_NSK, gates_NK, fit.transform_KK)
    probes: list[Probe] = []
    for n in rows:
        file, number = places[n]
        probes.append(Probe(file, number, scores_NS[n].tolist()))
    return probes


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
