"""The golden checkpoints and the outputs of the published model code on them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.tolerances import SCORE_TOLERANCE

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_NAMES = ("armorm", "qrm", "urm", "seqcls-llama-1", "seqcls-mistral-10")

# Against another implementation in float32, as against ourselves in other company.
GOLDEN_TOLERANCE = SCORE_TOLERANCE[torch.float32]


@cache
def golden_cases(name: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))["cases"]
