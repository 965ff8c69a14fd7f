"""What all files of golden numbers have in common: how they are drawn, and what they tell.

Nothing beside numpy and the standard library is used by these scripts, and nothing of what they
check.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FOLDER = Path(__file__).parent
NUM_CASES = 10

Floats = NDArray[np.float64]
Draws = np.random.Generator


@dataclass(frozen=True, slots=True)
class Family:
    """Optimisers whose golden numbers share their inputs, and a file."""

    name: str
    """Of the file, without its ending."""
    seed: int
    case: Callable[[Draws, int], dict[str, Any]]
    """Returns the inputs and the expected numbers of a case, given its place."""

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{self.name}.json"


def document(family: Family) -> dict[str, Any]:
    """Return what the file of a family holds."""
    draws = np.random.default_rng(family.seed)
    return {
        "seed": family.seed,
        "written": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "cases": [plain(family.case(draws, place)) for place in range(NUM_CASES)],
    }


def written(contents: dict[str, Any]) -> str:
    """Return the text of a file, with each case on a line of its own."""
    head = {key: value for key, value in contents.items() if key != "cases"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    cases = ",\n".join(f"  {json.dumps(one, allow_nan=False)}" for one in contents["cases"])
    return "{\n" + ",\n".join([*lines, f' "cases": [\n{cases}\n ]']) + "\n}\n"


def drawn(draws: Draws, *shape: int, mean: float = 0.0, spread: float = 1.0) -> Floats:
    """Return normal numbers with three decimals, so that the file holds just what was used."""
    return np.round(draws.normal(mean, spread, shape), 3)


def plain(value: Any) -> Any:
    """Return arrays as lists and NaN as None, at any depth."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def preferred(winner: ArrayLike, loser: ArrayLike) -> Floats:
    """Return -log P(winner > loser) by Bradley-Terry, ``P = e^w / (e^w + e^l)``."""
    winner, loser = np.asarray(winner, dtype=float), np.asarray(loser, dtype=float)
    largest = np.maximum(winner, loser)
    total = np.exp(winner - largest) + np.exp(loser - largest)
    return np.log(total) + largest - winner
