"""Stage 2 recovers a planted gate, on the rewards that are served."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steerward.gating.aggregate import preference_scores
from steerward.gating.network import GatingNetwork
from steerward.training.config import GatingConfig
from steerward.training.gating import GatingData, margins, scores, train_gate


def config(**options: object) -> GatingConfig:
    settings = {
        "data": [Path("unused")],
        "embeddings": Path("unused"),
        "heads": Path("unused"),
        "out": Path("unused"),
        "steps": 400,
        "batch_size": 256,
        "learning_rate": 1e-2,
        "hidden_size": 16,
        "dropout": 0.0,
    }
    return GatingConfig.model_validate(settings | options)


def planted_data(*, transform_KK: torch.Tensor, count: int = 3000) -> GatingData:
    """Two kinds of prompts; in each, another objective of the transformed rewards decides."""
    generator = torch.Generator().manual_seed(0)
    kind_N = torch.randint(0, 2, (count,), generator=generator)
    prompts_NH = torch.randn(count, 8, generator=generator)
    prompts_NH[:, 0] = kind_N * 4.0 - 2.0
    rewards_NSK = torch.randn(count, 2, 3, generator=generator)
    deciding_NS = (rewards_NSK @ transform_KK)[torch.arange(count), :, kind_N]
    is_swapped_N = deciding_NS[:, 0] < deciding_NS[:, 1]
    rewards_NSK[is_swapped_N] = rewards_NSK[is_swapped_N].flip(dims=(-2,))
    held_out_N = torch.rand(count, generator=generator) < 0.2
    return GatingData(prompts_NH, rewards_NSK, held_out_N, torch.ones(count))


def test_planted_gate_is_recovered() -> None:
    data = planted_data(transform_KK=torch.eye(3))
    fit = train_gate(data, torch.eye(3), config())
    assert fit.accuracy > 0.93
    for kind in (0, 1):
        prompts = data.prompts_NH[data.prompts_NH[:, 0] == kind * 4.0 - 2.0]
        gates = fit.gate(prompts).detach().mean(dim=0)
        assert int(gates.argmax()) == kind
        assert float(gates[kind] / gates.sum()) > 0.8


def test_no_single_weighting_could_have_done_it() -> None:
    """The planted truth needs the prompt: the best constant gate stays far behind."""
    data = planted_data(transform_KK=torch.eye(3))
    difference = data.rewards_NSK[:, 0] - data.rewards_NSK[:, 1]
    best = max(
        float((difference @ torch.tensor([w, 1 - w, 0.0]) > 0).float().mean())
        for w in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    assert best < 0.85


def test_loss_sees_transformed_rewards() -> None:
    """ArmoRM's public script computes transformed rewards and trains on the raw ones."""
    transform_KK = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-3.0, -3.0, 0.0]])
    data = planted_data(transform_KK=transform_KK)
    on_served = train_gate(data, transform_KK, config())
    on_raw = train_gate(data, torch.eye(3), config())
    assert on_served.accuracy > on_raw.accuracy + 0.05
    gate = on_served.gate
    expected = scores(data.rewards_NSK, gate(data.prompts_NH), transform_KK)
    torch.testing.assert_close(
        margins(gate, data.prompts_NH, data.rewards_NSK, transform_KK),
        expected[:, 0] - expected[:, 1],
    )


def test_gates_are_over_objectives_and_not_over_the_pair() -> None:
    """With the softmax over chosen and rejected, all gates are one half and nothing is learned."""
    gate = GatingNetwork.random(
        hidden_size=8, gate_hidden_size=8, num_hidden_layers=1, num_objectives=3, temperature=1.0
    )
    prompts_NH = torch.randn(5, 8)
    gates_NK = gate(prompts_NH)
    assert gates_NK.shape == (5, 3)
    torch.testing.assert_close(gates_NK.sum(dim=-1), torch.ones(5))
    margin = margins(gate, prompts_NH, torch.randn(5, 2, 3), torch.eye(3)).sum()
    margin.backward()
    assert all(
        float(weight.grad.abs().max()) > 0 for weight in gate.weights if weight.grad is not None
    )
    assert gate.weights[-1].grad is not None


def test_training_score_is_the_served_score() -> None:
    gate = GatingNetwork.random(
        hidden_size=8, gate_hidden_size=8, num_hidden_layers=2, num_objectives=3, temperature=2.0
    )
    transform_KK = torch.randn(3, 3)
    prompts_NH, rewards_NSK = torch.randn(7, 8), torch.randn(7, 2, 3)
    trained = scores(rewards_NSK, gate(prompts_NH), transform_KK)
    served, _ = preference_scores(
        rewards_NSK.flatten(0, 1),
        gate(prompts_NH),
        transform_KK=transform_KK,
        prompt_index_N=torch.arange(7).repeat_interleave(2),
    )
    torch.testing.assert_close(trained.flatten(), served)


def test_dropout_is_off_when_the_gate_is_judged() -> None:
    data = planted_data(transform_KK=torch.eye(3), count=600)
    fit = train_gate(data, torch.eye(3), config(dropout=0.5, steps=60))
    assert not fit.gate.training
    again = train_gate(data, torch.eye(3), config(dropout=0.5, steps=60))
    assert fit.history == again.history
    # A gate that does not move is judged as it is served.
    still = train_gate(data, torch.eye(3), config(dropout=0.5, steps=5, learning_rate=1e-12))
    held_out = data.part(data.held_out_N)
    expected = scores(held_out.rewards_NSK, still.gate(held_out.prompts_NH), torch.eye(3))
    torch.testing.assert_close(still.held_out_scores_NS, expected)


def test_held_out_pairs_are_judged_by_a_gate_that_has_not_seen_them() -> None:
    """Labels are noise: what a gate has seen it gets right, what it has not it cannot."""
    generator = torch.Generator().manual_seed(1)
    data = GatingData(
        torch.randn(400, 64, generator=generator),
        torch.randn(400, 2, 3, generator=generator),
        torch.arange(400) % 2 == 0,
        torch.ones(400),
    )
    fit = train_gate(data, torch.eye(3), config(steps=300, hidden_size=64))
    margin = fit.held_out_scores_NS[:, 0] - fit.held_out_scores_NS[:, 1]
    assert fit.accuracy == pytest.approx(float((margin > 0).float().mean()))
    assert fit.history[-1]["held_out_accuracy"] < 0.6
    lowest = min(fit.history, key=lambda entry: entry["held_out_loss"])
    assert fit.steps == lowest["step"] < 300


def test_gate_is_trained_on_all_pairs_in_the_end() -> None:
    data = planted_data(transform_KK=torch.eye(3), count=500)
    fit = train_gate(data, torch.eye(3), config(steps=100))
    other = GatingData(
        data.prompts_NH,
        torch.where(data.held_out_N[:, None, None], -data.rewards_NSK, data.rewards_NSK),
        data.held_out_N,
        data.weights_N,
    )
    changed = train_gate(other, torch.eye(3), config(steps=100))
    assert not torch.equal(fit.gate.weights[0], changed.gate.weights[0])
