"""Which completions a policy should imitate under a direction: the text it has, tilted.

DPA (arXiv:2402.18571) starts its iterations from a policy that reads directions already. Here
that start is made from text with known rewards, without sampling: under direction v a completion
y counts in proportion to ``exp(strength * v . z(y))``, z its standardised rewards. That is the
distribution closest to the text (in KL divergence) among those with the same mean of v . z, and
the optimum of v . z less KL divergence over strength.

Axis legend: N completions, M objectives of a direction, V directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def standardised(rewards_NM: Floats) -> Floats:
    """Return rewards with mean 0 and spread 1 over the completions.

    Raises:
        ValueError: If an objective has the same reward everywhere: no direction could tell
            completions apart by it.
    """
    spread_M = rewards_NM.std(axis=0)
    if not (spread_M > 0).all():
        raise ValueError(f"objective {int(spread_M.argmin())} has one reward for all completions")
    return (rewards_NM - rewards_NM.mean(axis=0)) / spread_M


def tilted_shares(standardised_NM: Floats, directions_VM: Floats, *, strength: float) -> Floats:
    """Return how often each completion is to be imitated under each direction.

    Args:
        standardised_NM: Rewards, as `standardised` gives them.
        directions_VM: Unit vectors.
        strength: 0 imitates all alike; higher ones fewer and better.

    Returns:
        Shares (V, N); each row sums to 1.
    """
    logits_VN = strength * directions_VM @ standardised_NM.T
    # Without the largest taken off, a strong tilt would overflow.
    weights_VN = np.exp(logits_VN - logits_VN.max(axis=-1, keepdims=True))
    return weights_VN / weights_VN.sum(axis=-1, keepdims=True)
