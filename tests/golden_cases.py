"""The golden checkpoints and the outputs of the published model code on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_NAMES = ("armorm", "qrm", "urm", "seqcls-llama-1", "seqcls-mistral-10")

# float32 against float32 of another implementation: sums in another order, nothing else.
GOLDEN_TOLERANCE = 1e-5


@cache
def golden_cases(name: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))["cases"]
