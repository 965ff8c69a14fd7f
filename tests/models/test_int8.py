"""int8 layers are close to what they stand in for, and indifferent to the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerward.models.checkpoint import load_reward_model, resolve_dtype
from steerward.models.int8 import Int8Linear, RoundedInputs
from steerward.protocol.errors import CheckpointRefused
from tests.golden_cases import GOLDEN, golden_cases


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 3, 70])
def test_outputs_are_within_a_few_hundredths(tokens: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias)
    inputs = torch.randn(1, tokens, 96) * torch.logspace(-3, 3, tokens)[:, None]
    with torch.inference_mode():
        exact = linear(inputs)
        outputs = Int8Linear(linear, RoundedInputs())(inputs)
    assert outputs.shape == exact.shape
    error = (outputs - exact).square().mean(dim=-1).sqrt()
    assert (error <= 0.03 * exact.square().mean(dim=-1).sqrt()).all()


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 24), RoundedInputs())
    inputs = torch.randn(9, 64)
    inputs[3] *= 1000
    with torch.inference_mode():
        together = layer(inputs)
        alone = torch.cat([layer(row[None]) for row in inputs])
    assert torch.equal(together, alone)


def test_zeros_stay_zeros() -> None:
    layer = Int8Linear(nn.Linear(64, 24, bias=False), RoundedInputs())
    assert not layer(torch.zeros(2, 64)).any()


def test_inputs_that_differ_are_rounded_anew() -> None:
    torch.manual_seed(0)
    inputs = RoundedInputs()
    layer = Int8Linear(nn.Linear(64, 24), inputs)
    one, other = torch.randn(2, 64), torch.randn(2, 64)
    first, second = layer(one), layer(other)
    assert torch.equal(layer(one), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["armorm", "seqcls-mistral-10"])
def test_a_checkpoint_in_int8_scores_about_the_same(name: str) -> None:
    exact = load_reward_model(GOLDEN / name, device="cpu")
    rounded = load_reward_model(GOLDEN / name, device="cpu", dtype="int8")
    assert rounded.backbone.dtype is torch.int8
    assert rounded.num_parameters >= exact.num_parameters
    for case in golden_cases(name):
        ours = rounded.score_conversation(case["messages"]).rewards_NK
        theirs = exact.score_conversation(case["messages"]).rewards_NK
        assert float((ours - theirs).abs().mean()) < 0.1
        assert not torch.equal(ours, theirs)


def test_int8_is_refused_where_there_are_no_kernels_for_it() -> None:
    with pytest.raises(CheckpointRefused, match="int8 is for CPUs"):
        resolve_dtype("int8", torch.device("cuda"), {})
