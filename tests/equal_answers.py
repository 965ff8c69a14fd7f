"""Whether the two encodings of one answer say the same, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np

from steerward.clients.arrays import ScoreArrays

# Of a candidate, by their name among the arrays. What is not here follows from these.
_COLUMNS = {
    "tokens": "tokens",
    "rewards": "rewards",
    "score": "scores",
    "weighted_score": "weighted_scores",
    "direction_score": "direction_scores",
    "direction_scores": "direction_scores",
    "coefficients": "coefficients",
    "gates": "gates",
}


def assert_same(answer: dict[str, Any], arrays: ScoreArrays) -> None:
    """Compare an answer by name with one in arrays; bit by bit, their ids left out."""
    rows = [
        {"gates": item.get("gates"), **candidate}
        for item in answer["items"]
        for candidate in item["candidates"]
    ]
    items = [item["index"] for item in answer["items"] for _ in item["candidates"]]
    assert arrays.item.tolist() == items
    seen: set[str] = set()
    for key, name in _COLUMNS.items():
        found = [_values(row.get(key), arrays.summary.objectives) for row in rows]
        if found[0] is None:
            continue
        seen.add(name)
        array = getattr(arrays, name)
        assert array is not None, name
        wanted = np.array(found, array.dtype)
        # As many digits as were sent in JSON are as many as there are.
        assert np.array_equal(wanted.reshape(array.shape), array), name
        assert array.shape[0] == len(rows)
    absent = set(_COLUMNS.values()) - seen
    assert all(getattr(arrays, name) is None for name in absent), absent
    summary = arrays.summary.model_dump(exclude_none=True)
    assert list(rows[0]["rewards"]) == summary.pop("objectives")
    wanted_summary = {key: value for key, value in answer.items() if key not in ("items", "id")}
    assert summary.pop("id").startswith("score-")
    assert summary == wanted_summary


def _values(value: Any, objectives: list[str]) -> Any:
    """Return a mapping by name as the list of its numbers, which must be in head order."""
    if not isinstance(value, dict):
        return value
    assert list(value) == objectives
    return list(value.values())
