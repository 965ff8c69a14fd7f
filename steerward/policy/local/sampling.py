"""Draw the next token of many sequences at once, each by its own settings and its own numbers.

One uniform number a token and sequence, taken through the inverse of the cumulative
distribution: what a sequence draws depends on its seed, its place in the request and its own
logits, never on its neighbours.

Axis legend: B sequences, V vocabulary, W alternatives.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_LEAST_TEMPERATURE = 1e-4


@dataclass(slots=True)
class Draw:
    """How one sequence draws, and what it has drawn so far."""

    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int | None
    numbers: random.Random
    counts: Counter[int] = field(default_factory=Counter[int])

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken always.

        Nothing else is left to draw at temperatures near 0, where logits would overflow.
        """
        return self.temperature < _LEAST_TEMPERATURE


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tokens drawn, with log-probabilities where somebody asked for them."""

    tokens: list[int]
    logprobs: list[float]
    """Of the tokens drawn, or empty."""
    top_tokens: list[list[int]]
    top_logprobs: list[list[float]]


def numbers_for(seed: int | None, index: int) -> random.Random:
    """Return the stream of uniform numbers of one sample of a request."""
    if seed is None:
        return random.Random()
    key = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return random.Random(int.from_bytes(key[:16], "big"))


def draw_tokens(logits_BV: Tensor, draws: Sequence[Draw]) -> Drawn:
    """Return the next token of each sequence.

    Penalties are OpenAI's: presence is taken off the logit of every token drawn before, frequency
    times how often. Log-probabilities are the model's own, before penalties, temperature and
    top_p.

    Args:
        logits_BV: Of the model; float32.
        draws: One a row; counts of drawn tokens are updated.
    """
    logprobs, top_tokens, top_logprobs = _model_logprobs(logits_BV, draws)
    penalised = _penalised(logits_BV, draws)
    tokens_B = _likeliest_or_drawn(penalised, draws)
    tokens = tokens_B.tolist()
    if logprobs is None:
        chosen_logprobs: list[float] = []
    else:
        chosen_logprobs = logprobs.gather(-1, tokens_B[:, None])[:, 0].tolist()
    for draw, token in zip(draws, tokens, strict=True):
        draw.counts[token] += 1
    return Drawn(tokens, chosen_logprobs, top_tokens, top_logprobs)


def _likeliest_or_drawn(logits_BV: Tensor, draws: Sequence[Draw]) -> Tensor:
    rows = [i for i, draw in enumerate(draws) if not draw.is_greedy]
    if not rows:
        return logits_BV.argmax(dim=-1)
    temperatures = _column([draws[i].temperature for i in rows]).to(logits_BV)
    chosen = logits_BV if len(rows) == len(draws) else logits_BV[rows]
    drawn = _sample((chosen / temperatures).softmax(dim=-1), [draws[i] for i in rows])
    if len(rows) == len(draws):
        return drawn
    tokens_B = logits_BV.argmax(dim=-1)
    tokens_B[rows] = drawn
    return tokens_B


def _model_logprobs(
    logits_BV: Tensor, draws: Sequence[Draw]
) -> tuple[Tensor | None, list[list[int]], list[list[float]]]:
    wanted = [draw.top_logprobs for draw in draws if draw.top_logprobs is not None]
    if not wanted:
        return None, [], []
    logprobs_BV = logits_BV.log_softmax(dim=-1)
    if not (most := max(wanted)):
        empty: list[list[int]] = [[] for _ in draws]
        return logprobs_BV, empty, [[] for _ in draws]
    values, tokens = logprobs_BV.topk(min(most, logits_BV.shape[-1]), dim=-1)
    return logprobs_BV, tokens.tolist(), values.tolist()


def _penalised(logits_BV: Tensor, draws: Sequence[Draw]) -> Tensor:
    result = logits_BV
    for i, draw in enumerate(draws):
        if not draw.counts or not (draw.presence_penalty or draw.frequency_penalty):
            continue
        if result is logits_BV:
            result = logits_BV.clone()
        tokens = torch.tensor(list(draw.counts), device=result.device)
        counts = list(draw.counts.values())
        times = torch.tensor(counts, dtype=torch.float32, device=result.device)
        result[i, tokens] -= draw.presence_penalty + draw.frequency_penalty * times
    return result


def _column(values: Sequence[float]) -> Tensor:
    # While transformers loads weights in another thread, the default is their data type.
    return torch.tensor(values, dtype=torch.float32)[:, None]


def _sample(probabilities_BV: Tensor, draws: Sequence[Draw]) -> Tensor:
    uniform_B1 = torch.tensor([[draw.numbers.random()] for draw in draws], dtype=torch.float64)
    uniform_B1 = uniform_B1.to(probabilities_BV.device)
    limited = [i for i, draw in enumerate(draws) if draw.top_p < 1.0]
    if not limited:
        return _invert(probabilities_BV, uniform_B1)
    tokens_B = torch.empty(len(draws), dtype=torch.long, device=probabilities_BV.device)
    free = [i for i, draw in enumerate(draws) if draw.top_p >= 1.0]
    if free:
        tokens_B[free] = _invert(probabilities_BV[free], uniform_B1[free])
    top_p = _column([draws[i].top_p for i in limited]).to(probabilities_BV)
    tokens_B[limited] = _sample_nucleus(probabilities_BV[limited], top_p, uniform_B1[limited])
    return tokens_B


def _sample_nucleus(probabilities_BV: Tensor, top_p_B1: Tensor, uniform_B1: Tensor) -> Tensor:
    """Draw among the fewest tokens that reach top_p together; of equals the first of them."""
    ordered_BV = _descending(probabilities_BV)
    before_BV = ordered_BV.double().cumsum(dim=-1) - ordered_BV
    # A token stays if those before it do not reach top_p yet; so the first one always does.
    num_kept_B1 = (before_BV < top_p_B1).sum(dim=-1, keepdim=True).clamp(min=1)
    least_B1 = ordered_BV.gather(-1, num_kept_B1 - 1)
    is_above_BV = probabilities_BV > least_B1
    is_least_BV = probabilities_BV == least_B1
    num_least_B1 = num_kept_B1 - is_above_BV.sum(dim=-1, keepdim=True)
    is_kept_BV = is_above_BV | (is_least_BV & (is_least_BV.cumsum(dim=-1) <= num_least_B1))
    return _invert(probabilities_BV * is_kept_BV, uniform_B1)


def _descending(values_BV: Tensor) -> Tensor:
    """Return the values of each row, largest first."""
    if values_BV.device.type != "cpu":
        return values_BV.sort(dim=-1, descending=True).values
    # On a CPU numpy sorts twenty times as fast as torch, which sorts places too.
    ascending_BV = np.sort(values_BV.detach().numpy(), axis=-1)
    return torch.from_numpy(ascending_BV).flip(-1)


def _invert(weights_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """Return the first index at which the cumulative weights pass a share of their sum."""
    # Sums of many small float32 would never quite reach the last tokens.
    cumulative = weights_BV.double().cumsum(dim=-1)
    passed = cumulative > uniform_B1 * cumulative[:, -1:]
    return passed.to(torch.uint8).argmax(dim=-1)
