"""All families of golden numbers."""

from __future__ import annotations

from tests.golden.optimizers import cgpo, grpo, mapl, modpo, multilabel, pama, rsf

FAMILIES = tuple(module.FAMILY for module in (grpo, pama, modpo, cgpo, mapl, multilabel, rsf))
