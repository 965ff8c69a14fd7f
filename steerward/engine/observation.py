"""What the engine tells the metrics: batches, rewards, gates, stages.

Axis legend: N candidates, P prompts, K objectives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from steerward.engine.result import BatchResult
from steerward.engine.runner import Prepared
from steerward.metrics import STAGES, Metrics
from steerward.protocol.objectives import ObjectiveSet


class Observer:
    """Records one model's work, by as many threads as it has replicas.

    Args:
        metrics: Of the server process.
        model: Name the model is served under.
        objectives: In head order.
        is_shown: Whether the gauges read it now; else from `show` on. What is counted is counted.
    """

    def __init__(
        self, metrics: Metrics, *, model: str, objectives: ObjectiveSet, is_shown: bool = True
    ) -> None:
        self._metrics = metrics
        self._is_shown = is_shown
        self._model = model
        self._names = objectives.names
        self._queues: dict[str, Callable[[], int]] = {}
        self._caches: list[Callable[[], int]] = []
        self._ready: dict[str, bool] = {}
        # Held by device threads and the event loop, never by a signal handler.
        self._recording = threading.Lock()
        self._unrecorded: deque[tuple[Prepared, BatchResult]] = deque()
        self._stop_settling = metrics.before_reading(self.settle)
        self._count = 0
        self._mean_K = torch.zeros(len(objectives), dtype=torch.float64)
        self._squares_K = torch.zeros(len(objectives), dtype=torch.float64)

    def add_replica(
        self, device: str, *, queued_tokens: Callable[[], int], cached_bytes: Callable[[], int]
    ) -> str:
        """Make a replica known, not ready yet; return its label, the device if that is free.

        Whoever reads the metrics sees how many tokens wait then, and what kept prompts hold.
        """
        label, number = device, 1
        while label in self._queues:
            number += 1
            label = f"{device} #{number}"
        self._queues[label] = queued_tokens
        self._caches.append(cached_bytes)
        self._ready[label] = False
        if self._is_shown:
            self.show()
        return label

    def show(self) -> None:
        """Let the gauges read this observer, and no other of the same model, from now on."""
        metrics, model = self._metrics, self._model
        for label, queued_tokens in self._queues.items():
            metrics.replica_queued_tokens.labels(model, label).set_function(queued_tokens)
        queues, caches = self._queues, self._caches
        total = metrics.queued_tokens.labels(model)
        total.set_function(lambda: sum(queued() for queued in queues.values()))
        held = metrics.prefix_cache_bytes.labels(model)
        held.set_function(lambda: sum(cached() for cached in caches))
        with self._recording:
            self._is_shown = True
            self._show_ready()
            if self._count:
                self._show_rewards()

    def retire(self) -> None:
        """Be shown no more, and let go of the replicas; what they still do is counted."""
        with self._recording:
            self._is_shown = False
        self._stop_settling()
        # Gauges that read them meanwhile keep what they have: another observer is shown next.
        self._queues, self._caches = {}, []

    def record_ready(self, replica: str, is_ready: bool) -> None:
        """Record whether a replica answers requests; the model does if one of them does."""
        with self._recording:
            self._ready[replica] = is_ready
            if self._is_shown:
                self._show_ready()

    def record_answer(self, replica: str, seconds: dict[str, float]) -> None:
        """Record how long a request that a replica answered spent in each stage."""
        self._metrics.replica_answers.labels(self._model, replica).inc()
        for stage in STAGES:
            self._metrics.stage_duration.labels(self._model, stage).observe(seconds[stage])

    def record_joined(self, candidates: int) -> None:
        """Record candidates that wait for the scores of an equal item in flight."""
        self._metrics.joined_candidates.labels(self._model).inc(candidates)

    def record_batch(self, prepared: Prepared, result: BatchResult) -> None:
        """Remember one forward pass; `settle` counts it, or whoever reads the metrics first."""
        self._unrecorded.append((prepared, result))

    def settle(self) -> None:
        """Count the forward passes that are remembered."""
        with self._recording:
            while self._unrecorded:
                self._count_batch(*self._unrecorded.popleft())

    def _count_batch(self, prepared: Prepared, result: BatchResult) -> None:
        metrics, model = self._metrics, self._model
        num_candidates = len(result.output.rewards_NK)
        metrics.batch_tokens.labels(model).observe(prepared.num_tokens)
        metrics.batch_candidates.labels(model).observe(num_candidates)
        metrics.computed_tokens.labels(model).inc(prepared.num_tokens)
        metrics.padding_tokens.labels(model).inc(prepared.num_tokens - prepared.num_text_tokens)
        metrics.prefix_cache_queries.labels(model).inc(
            sum(len(chunk.group.prefix) for chunk in prepared.chunks)
        )
        for placement in prepared.placements:
            metrics.prefix_tokens_saved.labels(model).inc(placement.tokens_saved)
            metrics.prefix_cache_hits.labels(model).inc(placement.tokens_cached)
        metrics.candidates.labels(model).inc(num_candidates)
        metrics.non_finite.labels(model).inc(len(result.non_finite))
        finite = [n for n in range(num_candidates) if n not in result.non_finite]
        if finite:
            self._record_rewards(result.output.rewards_NK[finite])
        if result.output.gates is not None:
            per_prompt = result.gates_are_per_prompt
            rows = [p.first for p in prepared.placements] if per_prompt else slice(None)
            self._record_gates(result.output.gates[rows])

    def _record_rewards(self, rewards_NK: Tensor) -> None:
        """Update mean and variance since the start (Chan et al. 1979, pairwise update)."""
        rewards_NK = rewards_NK.double()
        count = rewards_NK.shape[0]
        mean_K = rewards_NK.mean(dim=-2)
        squares_K = ((rewards_NK - mean_K) ** 2).sum(dim=-2)
        is_first = not self._count
        shift_K = mean_K - self._mean_K
        total = self._count + count
        self._squares_K += squares_K + shift_K**2 * (self._count * count / total)
        self._mean_K += shift_K * (count / total)
        self._count = total
        if is_first and self._is_shown:
            self._show_rewards()

    def _show_ready(self) -> None:
        for replica, is_ready in self._ready.items():
            self._metrics.replica_ready.labels(self._model, replica).set(float(is_ready))
        self._metrics.ready.labels(self._model).set(float(any(self._ready.values())))

    def _show_rewards(self) -> None:
        """Let the gauges read the moments when they are looked at, not at every pass."""
        for k, name in enumerate(self._names):
            mean = self._metrics.reward_mean.labels(self._model, name)
            mean.set_function(lambda k=k: float(self._mean_K[k]))
            variance = self._metrics.reward_variance.labels(self._model, name)
            variance.set_function(lambda k=k: self._variance(k))

    def _variance(self, k: int) -> float:
        with self._recording:
            return float(self._squares_K[k]) / self._count

    def _record_gates(self, gates: Tensor) -> None:
        shares = gates.abs() / gates.abs().sum(dim=-1, keepdim=True)
        entropies = torch.special.entr(shares).sum(dim=-1)
        # Gates that are NaN, infinite or all zero have no shares; one NaN would stay in the sum.
        for entropy in entropies[torch.isfinite(entropies)].tolist():
            self._metrics.gate_entropy.labels(self._model).observe(entropy)
