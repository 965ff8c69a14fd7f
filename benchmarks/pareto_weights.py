"""What the weights of a step cost: PAMA's closed form, its Gram form, and gradients.

    python -m benchmarks.pareto_weights [--rounds N] [--objectives 2,10] [--out FILE.json]

All three start from the advantages of a batch, one a sample and objective, and end with advantages
to train on. The closed form takes the least of each row, and its weights too if they are asked
for; the Gram form needs products over the batch and Frank-Wolfe; MGDA needs a backward pass an
objective, here through a small model whose forward pass is not counted. Results are checked
before anything is timed: the shortest combination against its optimality condition, the closed
form against the weights that realise it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.command import main, table
from benchmarks.measure import interleaved
from steerward.training.align.grpo.diagnostics import flat_gradients, objective_losses
from steerward.training.align.grpo.pama import combine, noon
from steerward.training.align.grpo.pareto import min_norm_weights, nearest_to_zero

VALUE = "closed form"
WEIGHTS = "closed form, with weights"
GRAM = "Gram form"
BACKWARD = "backward passes"

_VOCABULARY = 256
# Of the duality gap, relative to the largest product; of the closed form, to its advantages.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 15
    calls: int = 20
    """Of each way in a round, except backward passes, of which there is one."""
    objectives: str = "2,3,5,10,20,50,100"
    batches: str = "64,512,4096"
    """Samples."""
    backward_rounds: int = 3
    backward_batch: int = 64
    """Samples that the model reads."""
    tokens: int = 32
    """Of each sample."""
    layers: int = 2
    width: int = 64


def run(setting: Setting, _: Path) -> dict[str, Any]:
    """Return medians by batch, objectives and way.

    Raises:
        SystemExit: If a result is not what it should be, so that nothing was timed.
    """
    counts = [int(text) for text in setting.objectives.split(",")]
    batches = [int(text) for text in setting.batches.split(",")]
    microseconds: dict[str, dict[str, dict[str, float]]] = {}
    for batch in batches:
        microseconds[str(batch)] = {
            str(count): _closed(advantages(batch, count), setting) for count in counts
        }
    backward = _backward(setting, counts)
    growth = {batch: exponents(found) for batch, found in microseconds.items()}
    figures = {"microseconds": microseconds, "backward": backward, "growth": growth}
    return {**figures, "tables": [_table(figures, counts), _growth_table(growth)]}


def advantages(num_samples: int, num_objectives: int) -> Tensor:
    """Return standardised advantages of objectives that agree in part."""
    generator = torch.Generator().manual_seed(0)
    shared_N1 = torch.randn(num_samples, 1, generator=generator)
    return shared_N1 + torch.randn(num_samples, num_objectives, generator=generator)


def exponents(microseconds: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return the power of the number of objectives that each way's time grows with.

    Least squares on logarithms over the upper half of the counts, where the constant cost of a
    call no longer hides it; None of fewer than two counts.
    """
    counts = sorted(map(int, microseconds))
    upper = counts[len(counts) // 2 :] if len(counts) > 2 else counts
    if len(upper) < 2:
        return dict.fromkeys((VALUE, WEIGHTS, GRAM))
    return {
        way: statistics.linear_regression(
            [math.log(count) for count in upper],
            [math.log(microseconds[str(count)][way]) for count in upper],
        ).slope
        for way in (VALUE, WEIGHTS, GRAM)
    }


def _closed(raw_NK: Tensor, setting: Setting) -> dict[str, float]:
    _check(raw_NK)
    ways: dict[str, Callable[[], object]] = {
        VALUE: lambda: nearest_to_zero(noon(raw_NK)),
        WEIGHTS: lambda: combine(noon(raw_NK)),
        GRAM: lambda: combine(noon(raw_NK), granularity="batch"),
    }

    def repeated(way: Callable[[], object]) -> None:
        for _ in range(setting.calls):
            way()

    seconds = interleaved(
        {name: lambda _, w=way: repeated(w) for name, way in ways.items()}, rounds=setting.rounds
    )
    return {name: statistics.median(found) / setting.calls * 1e6 for name, found in seconds.items()}


def _check(raw_NK: Tensor) -> None:
    clipped_NK = noon(raw_NK).double()
    combined = combine(clipped_NK)
    realised_N = (combined.weights * clipped_NK).sum(dim=-1)
    error = float((realised_N - nearest_to_zero(clipped_NK)).abs().amax())
    gram_KK = clipped_NK.T @ clipped_NK
    weights_K = min_norm_weights(gram_KK)
    slopes_K = gram_KK @ weights_K
    gap = float((weights_K @ slopes_K - slopes_K.amin()) / gram_KK.diagonal().amax())
    # Not `error > tolerance`, which NaN would pass.
    if not (error <= _TOLERANCE and gap <= _TOLERANCE):
        raise SystemExit(f"nothing is timed: closed form off by {error:.1e}, gap {gap:.1e}")


def _backward(setting: Setting, counts: list[int]) -> dict[str, float]:
    """Return microseconds of a backward pass an objective, and their shortest combination."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=setting.width,
            intermediate_size=2 * setting.width,
            num_hidden_layers=setting.layers,
            num_attention_heads=4,
        )
    )
    ids_NT = torch.randint(_VOCABULARY, (setting.backward_batch, setting.tokens))
    logits_NTV = model(input_ids=ids_NT, use_cache=False).logits[:, :-1]
    logps_NT = logits_NTV.log_softmax(dim=-1).gather(-1, ids_NT[:, 1:, None])[..., 0]
    parameters = list(model.parameters())

    def shortest(num_objectives: int) -> Tensor:
        raw_NK = advantages(setting.backward_batch, num_objectives)
        losses_K = objective_losses(raw_NK, logps_NT, mask_NT=torch.ones_like(logps_NT))
        gradients_KD = flat_gradients(losses_K, parameters)
        return min_norm_weights(gradients_KD @ gradients_KD.T)

    seconds = interleaved(
        {str(count): lambda _, n=count: shortest(n) for count in counts},
        rounds=setting.backward_rounds,
    )
    return {name: statistics.median(found) * 1e6 for name, found in seconds.items()}


def _table(figures: Mapping[str, Any], counts: list[int]) -> dict[str, Any]:
    rows: list[list[str]] = []
    for batch, by_count in figures["microseconds"].items():
        for count in map(str, counts):
            found = by_count[count]
            row = [f"{batch} samples, {count} objectives"]
            row += [f"{found[way]:,.0f}" for way in (VALUE, WEIGHTS, GRAM)]
            backward = figures["backward"][count]
            rows.append([*row, f"{backward:,.0f}", f"{backward / found[VALUE]:,.0f}x"])
    title = "microseconds a step for the weights of the objectives, medians"
    columns = ["batch", VALUE, WEIGHTS, GRAM, BACKWARD, "over closed form"]
    return table(title, columns, rows)


def _growth_table(growth: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    rows = [
        [f"{batch} samples", *("" if one is None else f"{one:.2f}" for one in found.values())]
        for batch, found in growth.items()
    ]
    title = "time grows with this power of the number of objectives; 1 is in proportion"
    return table(title, ["batch", VALUE, WEIGHTS, GRAM], rows)


if __name__ == "__main__":
    main(Setting, run)
