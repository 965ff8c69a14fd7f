"""Answers in arrays, for callers that score at a high rate.

numpy and safetensors are loaded when such an answer is asked for, and only then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from steerward.protocol.arrays import SUMMARY, ArraysSummary

if TYPE_CHECKING:
    from numpy import float32, float64, int64
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ScoreArrays:
    """Scores of all candidates of a request, a row each, in request order.

    Rewards and what explains them have a column per objective, in the order of
    `summary.objectives`.
    """

    summary: ArraysSummary
    """Model, weights, usage and objectives of the answer."""
    item: NDArray[int64]
    """Index of the item that a candidate belongs to."""
    tokens: NDArray[int64]
    """Tokens of the candidate, without the prompt."""
    rewards: NDArray[float32]
    """Raw head outputs, before the reward transform."""
    scores: NDArray[float32] | None = None
    """The checkpoint's own scores; None if it has several objectives and no gate."""
    weighted_scores: NDArray[float64] | None = None
    """Scores with the request's weights in place of the gates."""
    direction_scores: NDArray[float64] | None = None
    """Along the request's directions, a column each; one column for a single direction."""
    gates: NDArray[float32] | None = None
    """Gates, where an explanation was asked for and there is a gate."""
    coefficients: NDArray[float32] | None = None
    """Effective weight of each raw reward; times rewards, they sum to the score."""

    @classmethod
    def from_safetensors(cls, content: bytes) -> ScoreArrays:
        """Return the arrays of an answer.

        Raises:
            ValueError: If it is not one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file: {error}") from error
        if missing := {"item", "tokens", "rewards"} - arrays.keys():
            raise ValueError(f"tensors are missing: {', '.join(sorted(missing))}")
        # Those of later versions are left out, as keys of JSON that nobody asks for.
        known: dict[str, Any] = {name: arrays[name] for name in _TENSORS & arrays.keys()}
        return cls(_summary(content), **known)


_TENSORS = {field.name for field in fields(ScoreArrays)} - {"summary"}


def _summary(content: bytes) -> ArraysSummary:
    """Return the metadata; the library reads that of files only, so here is its header.

    It is known to be one by now: eight bytes with its length, then JSON.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = cast("dict[str, str]", header.get("__metadata__", {}))
    if SUMMARY not in metadata:
        raise ValueError(f"the metadata has no {SUMMARY!r}")
    return ArraysSummary.model_validate_json(metadata[SUMMARY])


def check_packages() -> None:
    """Refuse to ask for arrays that nothing here can read.

    Raises:
        ImportError: With the command that installs what is missing.
    """
    try:
        import numpy as np
        import safetensors
    except ImportError as error:
        raise ImportError(
            f"answers in arrays need {error.name}; run: pip install 'steerward[arrays]'"
        ) from error
    del np, safetensors
