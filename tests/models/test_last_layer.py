"""The last layer computes what is read, for every family whose layers allow it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from steerward.models.backbone import Backbone
from steerward.models.packing import Group
from steerward.models.plan import pack
from tests.tolerances import SCORE_TOLERANCE

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 300, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "cohere",
    "olmo2",
)
GROUPS = [
    Group(tuple(range(3, 40)), [tuple(range(50, 60)), tuple(range(70, 95))], 36),
    Group(tuple(range(3, 30)), [(7,)], 20),
]


def backbone_of(family: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(AutoModel.from_config(AutoConfig.for_model(family, **SIZES)).eval())


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_read_positions_are_those_of_the_whole_layer(family: str) -> None:
    backbone = backbone_of(family)
    assert backbone.prunes
    batch = pack(GROUPS)
    expected = backbone.all_states(batch)[batch.read_positions_R]
    found = backbone(batch)
    assert found.shape == (len(batch.read_positions_R), 64)
    atol = SCORE_TOLERANCE[torch.float32] * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


class Waits(TorchDispatchMode):
    """Counts where the host asks for a number of a tensor, and would wait for a device."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.is_nonzero.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_no_pass_waits_for_the_device(family: str) -> None:
    """To tell packed sequences, transformers looked at the positions in every pass."""
    backbone = backbone_of(family)
    batch = pack(GROUPS)
    with Waits() as waits:
        backbone(batch)
    assert waits.count == 0


@torch.inference_mode()
def test_only_keys_and_values_are_computed_for_all_tokens() -> None:
    backbone = backbone_of("llama")
    rows: dict[str, list[int]] = {}
    layer = backbone.model.layers[-1]
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            kept = rows.setdefault(name, [])
            module.register_forward_hook(lambda _, i, __, kept=kept: kept.append(i[0].shape[1]))
    batch = pack(GROUPS)
    with FlopCounterMode(display=False) as counter:
        backbone(batch)
    reads, tokens = len(batch.read_positions_R), batch.num_tokens
    for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.o_proj"):
        assert rows[name] == [reads], name
    for name in ("self_attn.k_proj", "self_attn.v_proj"):
        assert rows[name] == [tokens, reads], name
    # It is called for all tokens, and computes nothing but those that are read.
    (queries,) = (
        sum(flops.values())
        for name, flops in counter.get_flop_counts().items()
        if name.endswith("layers.2.self_attn.q_proj")
    )
    assert queries == 2 * reads * 64 * 64


def test_a_layer_that_comes_out_otherwise_stays_whole() -> None:
    """The self-check at loading decides, not a list of families."""
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model("llama", **SIZES)).eval()

    class Mixing(nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            # What a token gets depends on how many there are.
            return hidden if hidden.shape[1] > 3 else hidden.roll(1, dims=-1)

    model.layers[-1].mlp = Mixing()
    backbone = Backbone(model)
    assert not backbone.prunes
    batch = pack(GROUPS)
    with torch.inference_mode():
        assert torch.equal(backbone(batch), backbone.all_states(batch)[batch.read_positions_R])


def test_the_state_dict_keeps_its_keys() -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model("llama", **SIZES)).eval()
    keys = list(model.state_dict())
    Backbone(model)
    assert list(model.state_dict()) == keys
