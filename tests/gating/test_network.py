"""Gates lie on the simplex, whatever the leading axis; training and serving agree."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.gating.network import GatingNetwork


def network(*, num_objectives: int, dropout: float = 0.0, scale: float = 1.0) -> GatingNetwork:
    return GatingNetwork.random(
        hidden_size=12,
        gate_hidden_size=8,
        num_hidden_layers=2,
        num_objectives=num_objectives,
        temperature=2.0,
        scale=scale,
        dropout=dropout,
    )


@settings(deadline=None)
@given(rows=st.integers(0, 9), num_objectives=st.integers(1, 23), scale=st.floats(0.1, 10))
def test_gates_lie_on_the_scaled_simplex(rows: int, num_objectives: int, scale: float) -> None:
    gates = network(num_objectives=num_objectives, scale=scale)(torch.randn(rows, 12))
    assert gates.shape == (rows, num_objectives)
    assert bool((gates >= 0).all())
    torch.testing.assert_close(gates.sum(dim=-1), torch.full((rows,), scale))


def test_chosen_and_rejected_do_not_share_a_softmax() -> None:
    """ArmoRM's public script normalised over the pair instead of the objectives.

    With equal prompts every gate was then one half, whatever the network had learned.
    """
    gate = network(num_objectives=5)
    prompts_P2H = torch.randn(3, 1, 12).expand(3, 2, 12)
    gates = gate(prompts_P2H.reshape(-1, 12)).view(3, 2, 5)
    torch.testing.assert_close(gates.sum(dim=-1), torch.ones(3, 2))
    assert not torch.allclose(gates, torch.full_like(gates, 0.5))


def test_rows_may_be_picked_by_position() -> None:
    gate = network(num_objectives=4)
    hidden_TH = torch.randn(7, 12)
    positions = torch.tensor([6, 0, 6])
    torch.testing.assert_close(gate(hidden_TH, positions), gate(hidden_TH[positions]))


def test_dropout_acts_in_training_mode_only() -> None:
    torch.manual_seed(0)
    gate = network(num_objectives=4, dropout=0.5)
    hidden = torch.randn(5, 12)
    gate.train()
    assert not torch.equal(gate(hidden), gate(hidden))
    gate.eval()
    assert torch.equal(gate(hidden), gate(hidden))
    # Without dropout, the training path and the served path are the same function.
    gate.dropout = 1e-12
    gate.train()
    torch.testing.assert_close(gate(hidden), gate.eval()(hidden))


def test_gradients_reach_every_layer() -> None:
    gate = network(num_objectives=3)
    gate(torch.randn(4, 12))[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in gate.parameters())
