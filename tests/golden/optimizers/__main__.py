"""Write every file of golden numbers anew: ``python -m tests.golden.optimizers``."""

from __future__ import annotations

from tests.golden.optimizers.document import document, written
from tests.golden.optimizers.families import FAMILIES

for family in FAMILIES:
    family.path.write_text(written(document(family)), encoding="utf-8")
    print(family.path.name)
