"""What the benchmark of the kernels measures: attention of some groups, and the epilogue.

Every way of computing either one is a method by name, and each is compared with the reference.
Axis letters: N candidates, P prompts, K objectives, H hidden, T tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steerward.kernels import aggregate, gating_mlp, pooled_heads
from steerward.kernels.prefix_attention import (
    AttentionLayout,
    LayoutTables,
    QueryRun,
    Span,
    prefix_attention,
)
from steerward.kernels.prefix_attention.reference import prefix_attention as reference

KERNEL, PADDED, BY_RUN, EAGER = "kernel", "sdpa padded", "sdpa run by run", "eager"


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and the candidates behind it, in tokens; a prompt of 0 is nothing shared."""

    prompt: int
    replies: tuple[int, ...]


RAGGED = tuple(Group(0, (64 + 97 * number % 1500,)) for number in range(32))
CASES = {
    "4 groups of 8 x (300 + 120)": (Group(300, (120,) * 8),) * 4,
    "1 group of 16 x (1024 + 128)": (Group(1024, (128,) * 16),),
    "32 ragged singles": RAGGED,
}


class Attention:
    """One layer's attention over some groups, in the ways that are compared."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        heads: int = 32,
        key_heads: int = 8,
        channels: int = 128,
        dtype: torch.dtype = torch.bfloat16,
        device: str = "cuda",
    ) -> None:
        self.layout, self.rows = lay_out(groups)
        self.tables = LayoutTables.build(self.layout).to(torch.device(device))
        self.scale = channels**-0.5
        generator = torch.Generator(device).manual_seed(0)
        self.query, self.key, self.value = (
            torch.randn(
                (1, self.layout.num_queries, count, channels), generator=generator, device=device
            )
            .to(dtype)
            .transpose(1, 2)
            for count in (heads, key_heads, key_heads)
        )
        longest = max(map(len, self.rows))
        # Sequences one by one, padded on the right: causality hides the padding.
        padded = torch.tensor([[*r, *[r[-1]] * (longest - len(r))] for r in self.rows])
        self.padded = tuple(
            tensor[0][:, padded.to(device)].transpose(0, 1)
            for tensor in (self.query, self.key, self.value)
        )
        self.masks = [self._mask(run, device) for run in self.layout.runs]
        seen = sum(
            sum(end - start for start, end in run.spans) * (run.end - run.start)
            + (run.end - run.start) * (run.end - run.start + 1) // 2
            for run in self.layout.runs
        )
        self.flops = 4 * heads * channels * seen

    def methods(self) -> dict[str, Callable[[], Tensor]]:
        """Return the ways by name; the kernel's comes first."""
        tensors = (self.query, self.key, self.value)
        kernel = partial(prefix_attention, *tensors, self.layout, self.tables, scale=self.scale)
        return {KERNEL: kernel, PADDED: self._padded, BY_RUN: self._by_run}

    def errors(self) -> dict[str, float]:
        """Return the largest difference of each way from the reference in fp32."""
        tensors = (tensor.float() for tensor in (self.query, self.key, self.value))
        expected = reference(
            *tensors, self.layout, scale=self.scale, sliding_window=None, softcap=None
        )
        errors: dict[str, float] = {}
        for name, method in self.methods().items():
            found = method().float()
            if name == PADDED:
                parts = [(found[n, :, : len(r)], r) for n, r in enumerate(self.rows)]
            else:
                parts = [(found[0].transpose(0, 1), range(self.layout.num_queries))]
            errors[name] = max(
                (part.transpose(0, 1) - expected[0, list(rows)]).abs().max().item()
                for part, rows in parts
            )
        return errors

    def _padded(self) -> Tensor:
        query, key, value = self.padded
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.scale, enable_gqa=True
        )

    def _by_run(self) -> Tensor:
        mixed: list[Tensor] = []
        for run, mask in zip(self.layout.runs, self.masks, strict=True):
            key, value = (
                torch.cat([x[:, :, start:end] for start, end in (*run.spans, run.own)], dim=2)
                for x in (self.key, self.value)
            )
            options = {"attn_mask": mask, "is_causal": mask is None, "scale": self.scale}
            query = self.query[:, :, run.start : run.end]
            mixed.append(
                scaled_dot_product_attention(query, key, value, **options, enable_gqa=True)
            )
        return torch.cat(mixed, dim=2).transpose(1, 2)

    @staticmethod
    def _mask(run: QueryRun, device: str) -> Tensor | None:
        if not run.spans:
            return None
        num_shared, length = sum(end - start for start, end in run.spans), run.end - run.start
        mask = torch.ones(length, num_shared + length, dtype=torch.bool, device=device)
        return mask.tril(num_shared)


def lay_out(groups: Sequence[Group]) -> tuple[AttentionLayout, list[list[int]]]:
    """Return the packed layout of some groups, and the rows of each candidate's sequence."""
    runs: list[QueryRun] = []
    rows: list[list[int]] = []
    end = 0
    for group in groups:
        shared = Span(end, end := end + group.prompt)
        if group.prompt:
            runs.append(QueryRun(*shared, (), shared))
        for length in group.replies:
            own = Span(end, end := end + length)
            runs.append(QueryRun(*own, (shared,) if group.prompt else (), own))
            rows.append([*range(*shared), *range(*own)])
    return AttentionLayout(tuple(runs)), rows


class Epilogue:
    """Heads, gate and score of 64 candidates of 8 prompts, as ArmoRM-Llama3-8B has them."""

    def __init__(
        self, *, hidden: int = 4096, gate_hidden: int = 1024, tokens: int = 4096,
        device: str = "cuda",
    ) -> None:  # fmt: skip
        objectives, candidates, prompts = 19, 64, 8
        generator = torch.Generator(device).manual_seed(0)

        def weight(outputs: int, width: int) -> Tensor:
            values = torch.randn((outputs, width), generator=generator, device=device)
            return values / width**0.5

        widths = [hidden, *[gate_hidden] * 3, objectives]
        self.hidden_TH = (weight(tokens, hidden) * hidden**0.5).to(torch.bfloat16)
        self.heads_KH = weight(objectives, hidden)
        self.gate: dict[str, Any] = {
            "weights": [weight(o, i) for i, o in itertools.pairwise(widths)],
            "biases": [torch.zeros(o, device=device) for o in widths[1:]],
            "activation": "relu",
            "normalisation": "softmax",
            "temperature": 10.0,
            "scale": torch.ones(1, device=device),
        }
        self.transform_KK = torch.eye(objectives, device=device)
        self.last_N = torch.arange(candidates, device=device) * (tokens // candidates)
        self.gating_P = torch.arange(prompts, device=device) * (tokens // prompts)
        self.prompt_N = torch.arange(candidates, device=device) // (candidates // prompts)
        weights = (self.heads_KH, *self.gate["weights"])
        self.floor_bytes = 2 * hidden * (candidates + prompts) + sum(4 * w.numel() for w in weights)

    def methods(self) -> dict[str, Callable[[], Tensor]]:
        """Return the ways by name; the kernels' comes first."""
        kernels = (pooled_heads.pooled_heads, gating_mlp.gating_mlp, aggregate.aggregate)
        references = (
            pooled_heads.reference.pooled_heads,
            gating_mlp.reference.gating_mlp,
            aggregate.reference.aggregate,
        )
        return {KERNEL: partial(self._scores, *kernels), EAGER: partial(self._scores, *references)}

    def _scores(self, heads: Any, gate: Any, score: Any) -> Tensor:
        rewards_NK = heads(self.hidden_TH, self.last_N, self.heads_KH, None)
        gates_PK = gate(self.hidden_TH, self.gating_P, **self.gate)
        return score(rewards_NK, gates_PK, self.prompt_N, self.transform_KK)[0]

    def errors(self) -> dict[str, float]:
        """Return the largest difference of the kernels' scores from the references'."""
        scores = {name: method() for name, method in self.methods().items()}
        return {KERNEL: (scores[KERNEL] - scores[EAGER]).abs().max().item()}
