"""How a direction is written for pocket-policy: in the manner of DPA, in fewer words."""

SYSTEM_TEMPLATE = "Maximize helpfulness*{helpfulness} + verbosity*{verbosity}"
