from __future__ import annotations

import numpy as np
import pytest

from steerward.training.conditioning import standardised, tilted_shares


def test_shares_are_the_text_tilted() -> None:
    rewards = standardised(np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]]))
    assert np.allclose(rewards.mean(axis=0), 0)
    assert np.allclose(rewards.std(axis=0), 1)
    directions = np.array([[1.0, 0.0], [0.0, 1.0]])
    flat = tilted_shares(rewards, directions, strength=0.0)
    assert np.allclose(flat, 1 / 3)
    shares = tilted_shares(rewards, directions, strength=2.0)
    expected = np.exp(2.0 * rewards[:, 0])
    assert np.allclose(shares[0], expected / expected.sum())
    assert shares[1].argmax() == 1
    huge = tilted_shares(rewards, directions, strength=1e4)
    assert np.isfinite(huge).all()


def test_rewards_are_standardised_within_their_group() -> None:
    rewards = np.array([[0.0, 1.0], [2.0, 3.0], [10.0, 0.0], [30.0, 9.0]])
    found = standardised(rewards, ["a", "a", "b", "b"])
    assert np.allclose(found, [[-1, -1], [1, 1], [-1, -1], [1, 1]])
    with pytest.raises(ValueError, match="in group 'b'"):
        standardised(np.array([[0.0], [1.0], [2.0], [2.0]]), ["a", "a", "b", "b"])


def test_an_objective_that_never_varies_is_refused() -> None:
    with pytest.raises(ValueError, match="objective 1 has one reward"):
        standardised(np.array([[0.0, 1.0], [1.0, 1.0]]))
