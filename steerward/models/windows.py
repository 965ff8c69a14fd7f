"""How far attention of a family reaches: windows, chunks, positions; and how ours are registered.

Some families put a sliding window, or chunks of attention, into their masks and tell their layers
nothing of it. Ours build no masks: sequences must then be no longer than these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

from steerward.protocol.errors import CheckpointRefused


@dataclass(frozen=True, slots=True)
class Windows:
    """Sliding windows and chunks of attention that forward passes asked for, in tokens."""

    of_masks: set[int] = field(default_factory=set[int])
    """What the masks were to hold."""
    of_layers: set[int] = field(default_factory=set[int])
    """What the layers passed on, and our attention keeps."""

    @property
    def lost(self) -> set[int]:
        """Those that our attention does without."""
        return self.of_masks - self.of_layers


_watched: ContextVar[Windows | None] = ContextVar("watched", default=None)


@contextmanager
def watched_windows() -> Iterator[Windows]:
    """Collect the windows that passes under a watched attention in this context ask for."""
    windows = Windows()
    token = _watched.set(windows)
    try:
        yield windows
    finally:
        _watched.reset(token)


def note_window(window: int | None) -> None:
    """Take note of a window that a layer passed on."""
    if window is not None and (watched := _watched.get()) is not None:
        watched.of_layers.add(window)


def register_attention(name: str, function: Callable[..., Any], *, watched: str) -> None:
    """Register an attention that needs no masks with transformers.

    Where an attention has a function for masks, transformers looks at the positions to tell
    packed sequences before it calls that, and the host waits for the device in every pass. So
    only the name that is used at loading has one.

    Args:
        name: To serve under.
        function: Of transformers' interface.
        watched: Name under which `watched_windows` sees what masks would hold.
    """
    AttentionInterface.register(name, function)
    AttentionInterface.register(watched, function)
    AttentionMaskInterface.register(watched, _no_mask)


def _no_mask(*_: Any, local_size: int | None = None, **__: Any) -> None:
    """Build no mask: the layout stands in for it."""
    if local_size is not None and (watched := _watched.get()) is not None:
        watched.of_masks.add(local_size)


def max_positions(config: PretrainedConfig, windows: Windows) -> int:
    """Return the longest sequence that positions reach and attention without masks computes.

    That is less than the positions reach where the family keeps a sliding window or chunks of
    attention out of its layers: up to their size they change nothing. So it is with long RoPE,
    which rotates a whole batch by other frequencies as soon as one sequence is longer than its
    original positions: up to these, nothing depends on its neighbours.

    Raises:
        CheckpointRefused: If the configuration does not say.
    """
    text = config.get_text_config()
    limit: int | None = getattr(text, "max_position_embeddings", None)
    if limit is None:
        raise CheckpointRefused("config.json does not say max_position_embeddings")
    return min([limit, *windows.lost, *_original_positions(text)])


def _original_positions(config: PretrainedConfig) -> list[int]:
    """Return the lengths beyond which long RoPE changes its frequencies."""
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    # One mapping for all layers, or one for each type of layer.
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return [
        one["original_max_position_embeddings"]
        for one in each
        if one.get("rope_type") == "longrope"
    ]
