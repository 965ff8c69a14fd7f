"""The causal language model underneath: loaded by transformers, run on packed batches.

Axis legend: T packed tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from steerward.models.attention import PACKED_ATTENTION
from steerward.models.packing import Group, PackedBatch, pack
from steerward.protocol.errors import CheckpointRefused

# How far packed and plain forward passes may lie apart at the self-check, relative to the
# largest hidden value: rounding of a deep network, far below any error of layout.
_PARITY = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}


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
        self._check_packing()
        self.model.set_attn_implementation(PACKED_ATTENTION)

    @classmethod
    def load(
        cls, folder: Path, *, dtype: torch.dtype, device: torch.device, head_keys: set[str]
    ) -> Backbone:
        """Load the backbone of a checkpoint folder; nothing may be missing or left over.

        Args:
            folder: Folder with ``config.json`` and safetensors files.
            dtype: Type that the backbone computes in.
            device: Where it computes.
            head_keys: Keys of the files that are not the backbone's.

        Raises:
            CheckpointRefused: With the first missing, unexpected or mis-shaped key.
        """
        with _quiet_loading():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            try:
                model, report = AutoModel.from_pretrained(
                    folder,
                    config=config,
                    dtype=dtype,
                    trust_remote_code=False,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            except (ValueError, RuntimeError, OSError) as error:
                raise CheckpointRefused(f"the backbone in {folder} did not load: {error}") from error
        # Encoders with a pooling layer on top: scores read hidden states, never the pooler.
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        unexpected = sorted(set(report["unexpected_keys"]) - head_keys)
        if missing:
            raise CheckpointRefused(f"backbone key {missing[0]!r} is missing in {folder}")
        if unexpected:
            raise CheckpointRefused(f"key {unexpected[0]!r} in {folder} is not known")
        if hasattr(model, "pooler"):
            model.pooler = None
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise CheckpointRefused(f"backbone key {key!r} in {folder} holds NaN or infinity")
        return cls(model.to(device).eval())

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
        """Longest sequence the positions reach."""
        return self.config.get_text_config().max_position_embeddings

    @property
    def vocabulary_size(self) -> int:
        """Rows of the token embedding."""
        return self.model.get_input_embeddings().num_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored and computed in."""
        return self.model.dtype

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return final hidden states, (T, H), of a batch that is on this device."""
        output = self.model(
            input_ids=batch.input_ids_T[None],
            position_ids=batch.position_ids_T[None],
            use_cache=False,
            packed_batch=batch,
        )
        return output.last_hidden_state[0]

    @torch.inference_mode()
    def _check_packing(self) -> None:
        """Compare a packed group with its sequences alone, computed by transformers' own code.

        Refuses encoders, recurrent layers and whatever else does not keep segments apart.
        """
        step = max(1, self.vocabulary_size // 64)
        ids = [(7 + i * step) % self.vocabulary_size for i in range(24)]
        group = Group(ids[:8], [ids[8:16], ids[16:23]], gating_position=7)
        sequences = [[*group.prefix, *suffix] for suffix in group.suffixes]
        # Soft-capped scores exist only in the eager form; fused operators drop the cap.
        self.model.set_attn_implementation("eager")
        plain = [
            self.model(torch.tensor([ids], device=self.device), use_cache=False).last_hidden_state[0]
            for ids in sequences
        ]
        expected = torch.stack([states[-1] for states in plain])
        batch = pack([group]).to(self.device)
        self.model.set_attn_implementation(PACKED_ATTENTION)
        try:
            states_TH = self(batch)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise CheckpointRefused(
                f"a {self.config.model_type} backbone cannot be scored in packed batches: {error}"
            ) from error
        packed = states_TH[batch.last_positions_N]
        error = (packed - expected).abs().max() / expected.abs().max()
        if not error <= _PARITY[self.dtype]:
            raise CheckpointRefused(
                f"a {self.config.model_type} backbone gives other hidden states in a packed batch "
                f"than alone (relative difference {error:.2g}); it is not a causal decoder that "
                "transformers' attention interface reaches"
            )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers from printing a report of the head keys, which are ours to read."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
