"""What one forward pass leaves for later ones: keys and values of prompts, and their gates.

Planned before they exist: a batch that is laid out while the one before it runs may refer to
what that one will have computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True, eq=False, weakref_slot=True)
class KeyValues:
    """Keys and values of consecutive tokens of one sequence, by layer.

    Each is (1, heads of keys, tokens, channels), rotated to its position, in the backbone's type.
    """

    num_tokens: int
    by_layer: dict[int, tuple[Tensor, Tensor]] = field(
        default_factory=dict[int, tuple[Tensor, Tensor]]
    )
    """Empty until a forward pass has filled it."""

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(
            tensor.numel() * tensor.element_size()
            for pair in self.by_layer.values()
            for tensor in pair
        )


@dataclass(frozen=True, slots=True)
class CachedSpan:
    """Tokens ``start:end`` of earlier keys and values, that a batch attends to."""

    keys_values: KeyValues
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Capture:
    """Packed tokens ``start:end`` of a batch, whose keys and values are to be kept."""

    keys_values: KeyValues
    start: int
    end: int


@dataclass(slots=True, eq=False)
class GateSlot:
    """The gates of one prompt, on the device, once a forward pass has computed them."""

    gates_K: Tensor | None = None
