"""How a direction is written for pocket-policy: in the manner of DPA, in fewer words."""

from __future__ import annotations

from steerward.protocol.conditioning import ConditioningRule

RULE = ConditioningRule(
    name="pocket-policy",
    objectives=["helpfulness", "verbosity"],
    template="Maximize helpfulness*{helpfulness} + verbosity*{verbosity}",
    cone_deg=45.0,
)

# In the middle of the angles that may be asked for, and at both ends.
ANGLES_DEG = [angle / 2 for angle in range(-90, 91, 5)]
"""Directions that training shows: every 2.5 degrees of the cone."""
