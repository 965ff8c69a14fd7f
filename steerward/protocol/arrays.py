"""How an answer of ``POST /v1/score`` crosses the wire in arrays: one safetensors file.

Its tensors, rows in request order over all candidates of all items (N rows, K objectives, V
directions): ``item`` (N) int64, the index of the item that a row belongs to; ``tokens`` (N)
int64; ``rewards`` (N, K) float32; and where the JSON answer has them, ``scores`` (N) float32,
``weighted_scores`` (N) float64, ``direction_scores`` (N, V) float64, ``gates`` and
``coefficients`` (N, K) float32. The metadata is an `ArraysSummary` in JSON under one key.
"""

from __future__ import annotations

from steerward.protocol.scoring import ScoreSummary

MEDIA_TYPE = "application/vnd.safetensors"
"""What a client accepts to be answered in arrays; no such type is registered, this is the one
that is used."""
SUMMARY = "summary"
"""Key of the file's metadata."""


class ArraysSummary(ScoreSummary):
    """The metadata of an answer in arrays."""

    objectives: list[str]
    """Names of the columns of rewards, gates and coefficients, in head order."""
