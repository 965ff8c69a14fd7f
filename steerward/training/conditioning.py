"""Which completions a policy should imitate under a direction: the text it has, tilted.

DPA (arXiv:2402.18571) starts its iterations from a policy that reads directions already. Here
that start is made from text with known rewards, without sampling: under direction v a completion
y counts in proportion to ``exp(strength * v . z(y))``, z its standardised rewards. That is the
distribution closest to the text (in KL divergence) among those with the same mean of v . z, and
the optimum of v . z less KL divergence over strength.

Axis legend: N completions, M objectives of a direction, V directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def standardised(rewards_NM: Floats, groups_N: Sequence[str] | None = None) -> Floats:
    """Return rewards with mean 0 and spread 1 over the completions of each group.

    With kinds of prompts as groups a direction says how to answer a prompt, and not which prompts
    go with it: otherwise those that ask for long answers would stand in for verbosity.

    Args:
        rewards_NM: Of the completions.
        groups_N: Group of each; None: one group.

    Raises:
        ValueError: If an objective has the same reward all over a group: no direction could tell
            its completions apart by it.
    """
    groups = np.array([""] * len(rewards_NM) if groups_N is None else groups_N)
    result_NM = np.empty_like(rewards_NM)
    for group in np.unique(groups):
        own = rewards_NM[groups == group]
        spread_M = own.std(axis=0)
        if not (spread_M > 0).all():
            place = f" in group {str(group)!r}" if group else ""
            raise ValueError(
                f"objective {int(spread_M.argmin())} has one reward for all completions{place}"
            )
        result_NM[groups == group] = (own - own.mean(axis=0)) / spread_M
    return result_NM


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
