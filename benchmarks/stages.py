"""One batch from texts to the answer, with a span in the profiler for each stage and operation.

What an engine does on several threads is done here in turn on one, so that spans lie end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.workload import Item
from steerward.engine.answer import AnswerBuilder
from steerward.engine.items import ItemOutput
from steerward.models.output import RewardOutput
from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.scoring import ScoreRequest

STAGES = ("tokenise", "pack", "layers", "heads and gate", "answer")
OPERATIONS = ("linear", "attention", "norm")
_MARK = "steerward: "
_FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Span:
    """A stage, a layer or an operation, in milliseconds from the start of the batch."""

    name: str
    start_ms: float
    end_ms: float

    @property
    def length_ms(self) -> float:
        """How long it took."""
        return self.end_ms - self.start_ms


def record(model: RewardModel, items: Sequence[Item]) -> list[Span]:
    """Return the spans of one batch, after another one that warms up.

    On CUDA the device is waited for at the end of each span: the sum is longer than without.
    """
    _run(model, items)
    activities = [ProfilerActivity.CPU]
    if model.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _watched(model), profile(activities=activities) as recorded:
        _run(model, items)
    marked = [event for event in recorded.events() or [] if event.name.startswith(_MARK)]
    # On CUDA each has a twin on the device, which starts when the device comes to it.
    hosted = [event for event in marked if event.device_type.name == "CPU"]
    first = min(event.time_range.start for event in hosted)
    found = {
        (event.name.removeprefix(_MARK), event.time_range.start): Span(
            event.name.removeprefix(_MARK),
            (event.time_range.start - first) / 1e3,
            (event.time_range.end - first) / 1e3,
        )
        for event in hosted
    }
    spans = sorted(found.values(), key=lambda span: span.start_ms)
    return [_without_layers(span, spans) if span.name == _FORWARD else span for span in spans]


def _without_layers(forward: Span, spans: Sequence[Span]) -> Span:
    """Return what the reward model does when its backbone is done."""
    (layers,) = [span for span in spans if span.name == "layers"]
    return Span("heads and gate", layers.end_ms, forward.end_ms)


@torch.inference_mode()
def _run(model: RewardModel, items: Sequence[Item]) -> bytes:
    request = ScoreRequest.model_validate({"items": [item.body() for item in items]})
    builder = AnswerBuilder(model, name="timeline", request=request)
    with _span(model, "tokenise"):
        groups = [
            group_conversations(
                model.encode([{"role": "user", "content": item.prompt}], item.candidates)
            )
            for item in items
        ]
    with _span(model, "pack"):
        plan = model.plan()
        for item in groups:
            for group in item:
                plan.add(group)
        batch = plan.batch()
    with _span(model, _FORWARD):
        output = model(batch).to_host().by_candidate(model.gate_rows(batch))
    with _span(model, "answer"):
        answer = builder.build(groups, list(_outputs(groups, output)))
        return orjson.dumps(answer.by_name())


def _outputs(groups: Sequence[Sequence[Group]], output: RewardOutput) -> Iterator[ItemOutput]:
    row = 0
    for (group,) in groups:
        rows = slice(row, row + len(group.suffixes))
        row = rows.stop
        assert output.scores_N is not None
        assert output.gates is not None
        assert output.coefficients is not None
        yield ItemOutput(
            output.rewards_NK[rows],
            output.scores_N[rows],
            output.gates[rows.start],
            output.coefficients[rows.start],
            tokens_saved=0,
            tokens_cached=0,
            queue_s=0.0,
            inference_s=0.0,
        )


@contextmanager
def _span(model: RewardModel, name: str) -> Iterator[None]:
    with record_function(_MARK + name):
        yield
        _wait(model)


def _wait(model: RewardModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


@contextmanager
def _watched(model: RewardModel) -> Iterator[None]:
    """Put a span around every layer of the backbone and around its operations."""
    open_spans: list[Any] = []

    def opens(name: str) -> Any:
        def hook(*_: object) -> None:
            span = record_function(_MARK + name)
            span.__enter__()
            open_spans.append(span)

        return hook

    def closes(*_: object) -> None:
        _wait(model)
        open_spans.pop().__exit__(None, None, None)

    handles: list[Any] = []
    for name, module in [("layers", model.backbone), *_parts(model.backbone.model)]:
        handles.append(module.register_forward_pre_hook(opens(name)))
        # The last layer's first pass ends within its attention.
        handles.append(module.register_forward_hook(closes, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a backbone, and its operations by kind; attention holds its linears."""
    (layers,) = [m for m in backbone.children() if isinstance(m, nn.ModuleList)]
    for number, layer in enumerate(layers):
        yield f"layer {number}", layer
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear):
            yield "linear", module
        elif "norm" in type(module).__name__.lower():
            yield "norm", module
        elif name.endswith("attn"):
            yield "attention", module
