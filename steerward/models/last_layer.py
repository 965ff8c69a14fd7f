"""The last layer computes only what is read.

Heads and gate read one or two tokens of a sequence, and nothing follows the last layer. There,
all tokens still give keys and values, but output projection, feed-forward network and final norm
are needed at the read positions alone: most of one layer, out of as many as there are.

It needs no knowledge of a family's layer: its own forward runs twice, over all tokens until the
attention has the keys and values, and over the read positions with these. Queries come before the
attention too; they are left out of the first run where a projection makes nothing but them.

Axis legend: T packed tokens, R read positions, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from steerward.models.attention import AttentionPass, KeysReady
from steerward.models.int8 import Int8Linear


def prune_last_layer(layers: nn.ModuleList) -> None:
    """Let the last layer return hidden states of read positions only, (1, R, H).

    It does so where the pass through the model asks for it, see `AttentionPass`. The module
    stays itself: its keys in a state dict, its hooks.
    """
    layer = layers[-1]
    whole = layer.forward
    queries = _optional_queries(layer)

    def forward(
        hidden_states: Tensor, *args: Any, packed: AttentionPass | None = None, **keywords: Any
    ) -> Any:
        if packed is None:
            return whole(hidden_states, *args, **keywords)
        if not packed.only_reads:
            return whole(hidden_states, *args, packed=packed, **keywords)
        keys = AttentionPass(packed.batch, only_keys=True)
        queries.are_left_out = True
        try:
            whole(hidden_states, *args, packed=keys, **keywords)
        except KeysReady:
            pass
        else:
            raise NotImplementedError("a last layer without attention")
        finally:
            queries.are_left_out = False
        batch = packed.batch
        if not len(batch.read_positions_R):
            return hidden_states[:, :0]
        reads = AttentionPass(batch, keys_values=keys.keys_values)
        num_tokens = hidden_states.shape[1]
        rows = batch.read_positions_R
        args = tuple(_read(value, num_tokens, rows) for value in args)
        keywords = {name: _read(value, num_tokens, rows) for name, value in keywords.items()}
        return whole(hidden_states[:, rows], *args, packed=reads, **keywords)

    layer.forward = forward


@dataclass(slots=True)
class _Queries:
    """Of one layer."""

    are_left_out: bool = False
    """Whether zeros stand in for them, which take neither time nor memory."""


def _optional_queries(layer: nn.Module) -> _Queries:
    """Let the queries of a layer be left out, where a projection makes nothing but them."""
    queries = _Queries()
    projection = getattr(getattr(layer, "self_attn", None), "q_proj", None)
    if not isinstance(projection, nn.Linear | Int8Linear):
        return queries
    whole, width = projection.forward, projection.weight.shape[0]

    def forward(hidden_states: Tensor) -> Tensor:
        if queries.are_left_out:
            return hidden_states.new_zeros(()).expand(*hidden_states.shape[:-1], width)
        return whole(hidden_states)

    # Layers call their projections by position.
    projection.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    return queries


def _read(value: Any, num_tokens: int, rows: Tensor) -> Any:
    """Return what belongs to the tokens, at the read positions; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_read(part, num_tokens, rows) for part in value)
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == num_tokens:
        return value[:, rows]
    return value
