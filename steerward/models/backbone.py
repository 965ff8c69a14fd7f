"""The causal language model underneath: loaded by transformers, run on packed batches.

Axis legend: T packed tokens, H hidden.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from steerward.models.attention import PACKED_ATTENTION, WATCHED_ATTENTION, AttentionPass
from steerward.models.int8 import Int8Linear, round_linears
from steerward.models.last_layer import prune_last_layer
from steerward.models.packing import Group, PackedBatch
from steerward.models.plan import BatchPlan
from steerward.models.prefix_tree import PrefixTree
from steerward.models.pretrained import load_pretrained, move
from steerward.models.windows import max_positions, watched_windows
from steerward.protocol.errors import CheckpointRefused

logger = logging.getLogger(__name__)

# How far packed and plain forward passes may lie apart at the self-check, relative to the
# largest hidden value: rounding of a deep network, far below any error of layout.
_PARITY = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2, torch.int8: 6e-2}

# Share of a candidate's state that another candidate may move: rounding of experts that are
# batched together, nothing more. Exactly 0 for dense decoders.
_MOST_LEAK = 0.02


class Backbone(nn.Module):
    """A decoder without its output layer.

    Args:
        model: A transformers base model whose layers call the attention interface.

    Raises:
        CheckpointRefused: If the model cannot compute packed batches exactly.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.prunes = False
        """Whether the last layer computes read positions only."""
        self.bytes_per_token = 0
        """Memory of the keys and values of one token, in all layers."""
        with watched_windows() as self._windows:
            self._check_packing()

    @classmethod
    def load(
        cls, folder: Path, *, dtype: torch.dtype, device: torch.device, head_keys: set[str]
    ) -> Backbone:
        """Load the backbone of a checkpoint folder; nothing may be missing or left over.

        Args:
            folder: Folder with ``config.json`` and safetensors files.
            dtype: Type that the backbone computes in; int8 is for its linear layers, the rest is
                then in float32.
            device: Where it computes.
            head_keys: Keys of the files that are not the backbone's.

        Raises:
            CheckpointRefused: With the first missing, unexpected or mis-shaped key.
        """
        # Encoders with a pooling layer on top: scores read hidden states, never the pooler.
        model = load_pretrained(
            AutoModel,
            folder,
            what="backbone",
            dtype=torch.float32 if dtype is torch.int8 else dtype,
            other_keys=head_keys,
            may_miss=("pooler.",),
        )
        if hasattr(model, "pooler"):
            model.pooler = None  # pyright: ignore[reportArgumentType] (typed as a module)
        if dtype is torch.int8:
            round_linears(model)
        move(model.eval(), device)
        return cls(model)

    @property
    def config(self) -> PretrainedConfig:
        """The transformers configuration."""
        return self.model.config

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return self.config.get_text_config().hidden_size

    @property
    def max_positions(self) -> int:
        """Longest sequence that the positions reach and packed batches compute exactly.

        Raises:
            CheckpointRefused: If the configuration does not say.
        """
        return max_positions(self.config, self._windows)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the token embedding."""
        embedding = self.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding.num_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored in, and linear layers computed."""
        has_int8 = any(isinstance(module, Int8Linear) for module in self.model.modules())
        return torch.int8 if has_int8 else self.model.dtype

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return final hidden states at the read positions, (R, H).

        Args:
            batch: On this device.
        """
        if self.prunes:
            return self._run(batch, only_reads=True)
        return self._run(batch)[batch.read_positions_R]

    def all_states(self, batch: PackedBatch) -> Tensor:
        """Return final hidden states of all tokens, (T, H), of a batch that is on this device."""
        return self._run(batch)

    def _run(self, batch: PackedBatch, *, only_reads: bool = False) -> Tensor:
        output = self.model(
            input_ids=batch.input_ids_T[None],
            position_ids=batch.position_ids_T[None],
            use_cache=False,
            packed=AttentionPass(batch, only_reads=only_reads),
        )
        return output.last_hidden_state[0]

    @torch.inference_mode()
    def _check_packing(self) -> None:
        """Compare a packed group with its sequences alone, computed by transformers' own code.

        Refuses encoders, recurrent layers and whatever else does not keep segments apart.
        """
        first, second, third = (self._probe_ids(start) for start in (0, 1, 2))
        group = Group(first, [second, third[:-1]], gating_position=len(first) - 1)
        # Soft-capped scores exist only in the eager form; fused operators drop the cap.
        self.model.set_attn_implementation("eager")
        expected = torch.stack([self._alone([*first, *suffix]) for suffix in group.suffixes])
        try:
            self.model.set_attn_implementation(WATCHED_ATTENTION)
            self._last_states(group)
            self.model.set_attn_implementation(PACKED_ATTENTION)
            packed = self._last_states(group)
            # What one candidate says must not reach another, what the prompt says must.
            leak = self._last_states(Group(first, [third, third[:-1]], 0))[1] - packed[1]
            effect = self._last_states(Group(second, group.suffixes, 0))[1] - packed[1]
            tree = PrefixTree(capacity_tokens=sys.maxsize)
            self._last_states(Group(first, [third], 0), tree)
            self.bytes_per_token = _bytes_per_token(tree, first)
            resumed = self._last_states(group, tree)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise self._not_packable(str(error)) from error
        for states in (packed, resumed):
            difference = _relative_difference(states, expected)
            if not difference <= _PARITY[self.dtype]:
                raise self._not_packable(
                    f"hidden states differ from those alone by {difference:.2g}"
                )
        if not leak.abs().max() <= _MOST_LEAK * effect.abs().max():
            raise self._not_packable("its layers carry one candidate's text into the next")
        self._prune(group, expected)

    def _prune(self, group: Group, expected: Tensor) -> None:
        """Let the last layer compute what is read only, if that gives the same."""
        layers = getattr(self.model, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not layers:
            return
        prune_last_layer(layers)
        self.prunes = True
        try:
            states = self._last_states(group)
            is_same = bool(_relative_difference(states, expected) <= _PARITY[self.dtype])
        # Families may do anything in their layers; this one then computes all positions.
        except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError) as error:
            logger.info("the last layer computes all positions: %s", error)
            is_same = False
        self.prunes = is_same

    def _probe_ids(self, start: int) -> tuple[int, ...]:
        size = self.vocabulary_size
        return tuple((7 + start * 11 + i * max(1, size // 64)) % size for i in range(8))

    def _alone(self, ids: list[int]) -> Tensor:
        ids_1T = torch.tensor([ids], device=self.device)
        return self.model(ids_1T, use_cache=False).last_hidden_state[0, -1]

    def _last_states(self, group: Group, tree: PrefixTree | None = None) -> Tensor:
        plan = BatchPlan(tree or PrefixTree())
        plan.add(group)
        batch = plan.batch().to(self.device)
        for slot in batch.gate_slots:
            slot.gates_K = torch.empty(0)
        return self(batch)[batch.last_rows_N]

    def _not_packable(self, reason: str) -> CheckpointRefused:
        return CheckpointRefused(
            f"a {self.config.model_type} backbone cannot be scored in packed batches: {reason}; "
            "it must be a causal decoder whose layers call transformers' attention interface"
        )


def _bytes_per_token(tree: PrefixTree, prompt: Sequence[int]) -> int:
    """Return what a token of a prompt takes that is kept in a tree."""
    kept = {node.keys_values for node in tree.find(prompt) if node.keys_values is not None}
    return sum(keys_values.num_bytes for keys_values in kept) // len(prompt)


def _relative_difference(states: Tensor, expected: Tensor) -> float:
    return float((states - expected).abs().max() / expected.abs().max())
