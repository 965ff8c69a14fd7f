"""Every Prometheus metric in one table: name, unit, labels, buckets.

Labels come from closed sets: routes, codes, model names and devices of the command line,
objectives of the checkpoint. Nothing a client sends is ever a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKENS = tuple(float(2**power) for power in range(4, 17))
_CANDIDATES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_NATS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)

_GENERATION_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

STAGES = ("tokenisation", "queue", "inference", "total")


class _BeforeReading(Collector):
    """Collects nothing: lets others record what they have put off."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def collect(self) -> Iterable[Metric]:
        # Another thread may take one out meanwhile.
        for action in tuple(self.actions):
            action()
        return ()


class Metrics:
    """The metrics of one server process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # The first of all collectors, so that its actions come before any number is read.
        self._before_reading = _BeforeReading()
        self.registry.register(self._before_reading)
        model = ("model",)
        self.requests = self._counter("requests", "Requests answered.", ("route", "status"))
        self.request_duration = self._histogram(
            "request_duration_seconds", "From first byte in to last byte out.", ("route",), _SECONDS
        )
        self.refusals = self._counter("refusals", "Requests refused, by error code.", ("code",))
        self.stage_duration = self._histogram(
            "stage_duration_seconds",
            "Time a request spends in a stage.",
            ("model", "stage"),
            _SECONDS,
        )
        self.batch_tokens = self._histogram(
            "batch_tokens", "Tokens computed in one forward pass.", model, _TOKENS
        )
        self.batch_candidates = self._histogram(
            "batch_candidates", "Candidates scored in one forward pass.", model, _CANDIDATES
        )
        self.padding_tokens = self._counter(
            "padding_tokens",
            "Tokens computed that belong to no text; packed batches have none.",
            model,
        )
        self.computed_tokens = self._counter(
            "computed_tokens", "Tokens computed in forward passes.", model
        )
        self.prefix_tokens_saved = self._counter(
            "prefix_tokens_saved", "Prompt tokens that were not computed, by candidate.", model
        )
        self.prefix_cache_queries = self._counter(
            "prefix_cache_queries_tokens", "Prompt tokens that were looked up.", model
        )
        self.prefix_cache_hits = self._counter(
            "prefix_cache_hits_tokens",
            "Prompt tokens of these that an earlier forward pass had computed.",
            model,
        )
        self.prefix_cache_bytes = self._gauge(
            "prefix_cache_bytes", "Memory that kept keys and values hold.", model
        )
        self.queued_tokens = self._gauge("queued_tokens", "Tokens that wait for the device.", model)
        self.ready = self._gauge("ready", "1 if the model answers requests.", model)
        self.replica_queued_tokens = self._gauge(
            "replica_queued_tokens", "Tokens that wait for one device.", ("model", "device")
        )
        self.replica_ready = self._gauge(
            "replica_ready", "1 if the model's replica on a device works.", ("model", "device")
        )
        self.replica_answers = self._counter(
            "replica_answers", "Requests that a device has scored.", ("model", "device")
        )
        self.candidates = self._counter("candidates", "Candidates scored.", model)
        self.joined_candidates = self._counter(
            "joined_candidates",
            "Candidates not computed because an equal item was in flight; they got its scores.",
            model,
        )
        self.reward_mean = self._gauge(
            "reward_mean", "Mean raw reward of the weights that score.", ("model", "objective")
        )
        self.reward_variance = self._gauge(
            "reward_variance",
            "Variance of the raw reward of the weights that score.",
            ("model", "objective"),
        )
        self.gate_entropy = self._histogram(
            "gate_entropy_nats", "Entropy of the gates of a prompt, as shares.", model, _NATS
        )
        self.non_finite = self._counter(
            "non_finite_scores", "Candidates with NaN or infinite rewards, refused.", model
        )
        self.completions = self._counter(
            "completions",
            "Completions returned, by what ended them: stop, length, or, of a request that came "
            "to no end, error or closed.",
            ("model", "finish_reason"),
        )
        self.completion_tokens = self._counter(
            "completion_tokens", "Tokens drawn, those of samples that were not chosen too.", model
        )
        self.running_completions = self._gauge(
            "running_completions", "Completions that are being drawn.", model
        )
        self.waiting_completions = self._gauge(
            "waiting_completions", "Completions that wait for a place.", model
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From the request until there is something of a completion to send.",
            model,
            _GENERATION_SECONDS,
        )
        self.completion_duration = self._histogram(
            "completion_duration_seconds",
            "From the request until its last completion ended.",
            model,
            _GENERATION_SECONDS,
        )

        self.idempotent_answers = self._counter(
            "idempotent_answers",
            "Answers to requests with an idempotency key: first, joined (to one under way) or "
            "repeated (kept from before).",
            ("outcome",),
        )
        self.idempotency_bytes = self._gauge(
            "idempotency_bytes", "Memory that answers kept under idempotency keys hold.", ()
        )

    def before_reading(self, action: Callable[[], None]) -> Callable[[], None]:
        """Call an action whenever someone is about to read the metrics, on the reader's thread.

        Returns:
            What ends that; to be called once.
        """
        actions = self._before_reading.actions
        actions.append(action)
        return lambda: actions.remove(action)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"steerward_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"steerward_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(
            f"steerward_{name}", text, labels, buckets=tuple(buckets), registry=self.registry
        )
