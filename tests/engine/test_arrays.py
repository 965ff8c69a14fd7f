"""Both encodings of an answer come from the same arrays and say the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.clients.arrays import ScoreArrays
from steerward.engine.arrays import ScoredArrays
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale
from tests.engine.conftest import StartEngine, request
from tests.equal_answers import assert_same
from tests.golden_cases import GOLDEN_NAMES, golden_cases

ITEMS: list[dict[str, Any]] = [
    {"prompt": "Explain rainbows.", "candidates": ["Light splits in drops.", "No.", ""]},
    {"messages": golden_cases("armorm")[2]["messages"]},
]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "explain": {"explain": True},
    "weights": {"weights": {"objective_0": 2.0}},
    "direction": {"direction": {"objective_0": -3.0}, "explain": True},
    "directions": {
        "directions": [{"objective_0": 1.0}] * 3,
        "weights": {"objective_0": 1e39},
    },
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", GOLDEN_NAMES)
async def test_both_encodings_hold_the_same_numbers(start_engine: StartEngine, name: str) -> None:
    engine = await start_engine(name)
    for options in OPTIONS.values():
        scored = await engine.score(request(items=ITEMS, **options))
        arrays = ScoreArrays.from_safetensors(scored.arrays.to_safetensors())
        assert_same(scored.answer, arrays)
        assert arrays.summary.id == scored.answer["id"]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5),
    num_objectives=st.integers(1, 5),
    num_directions=st.integers(0, 3),
    has_gates=st.booleans(),
    is_explained=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_encodings_agree_on_any_shape(
    sizes: list[tuple[int, bool]],
    num_objectives: int,
    num_directions: int,
    has_gates: bool,
    is_explained: bool,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    count = sum(size for size, _ in sizes)

    def some(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)

    gates_NK = torch.cat(
        [
            some(size, num_objectives) if own else some(num_objectives).expand(size, -1)
            for size, own in sizes
        ]
    )
    arrays = ScoredArrays(
        summary={
            "id": "score-1", "object": "score", "model": "m", "weight_version": "w",
            "usage": {
                "prompt_tokens": 1, "candidate_tokens": 1, "prefix_tokens_saved": 0,
                "cached_tokens": 0, "total_tokens": 2,
            },
        },
        objectives=ObjectiveSet.from_names([f"objektiv ü {k}" for k in range(num_objectives)]),
        item_sizes=[size for size, _ in sizes],
        tokens_N=torch.arange(count),
        rewards_NK=some(count, num_objectives),
        scores_N=some(count) if has_gates else None,
        weighted_scores_N=some(count, dtype=torch.float64),
        direction_scores_NV=(
            some(count, num_directions, dtype=torch.float64) if num_directions else None
        ),
        gates_NK=gates_NK if has_gates and is_explained else None,
        coefficients_NK=some(count, num_objectives) if has_gates and is_explained else None,
        have_own_gates=[own for _, own in sizes],
        has_one_direction=num_directions == 1,
        is_explained=is_explained,
    )  # fmt: skip
    answer = arrays.by_name()
    assert_same(answer, ScoreArrays.from_safetensors(arrays.to_safetensors()))
    for item, (size, own) in zip(answer["items"], sizes, strict=True):
        assert [candidate["index"] for candidate in item["candidates"]] == list(range(size))
        has_any = has_gates and is_explained
        assert ("gates" in item) == (has_any and not own)
        assert all(("gates" in c) == (has_any and own) for c in item["candidates"])


def test_ratings_are_of_the_objectives_that_have_a_scale(armorm: Any) -> None:
    scale = RatingScale(label="0..4", multiplier=2.0, offset=1.0)
    names = [Objective(name="a"), Objective(name="b", rating=scale)]
    arrays = ScoredArrays(
        summary={},
        objectives=ObjectiveSet(objectives=tuple(names)),
        item_sizes=[2],
        tokens_N=torch.tensor([1, 2]),
        rewards_NK=torch.tensor([[0.5, 1.5], [0.25, -0.5]]),
        scores_N=None,
        weighted_scores_N=None,
        direction_scores_NV=None,
        gates_NK=None,
        coefficients_NK=None,
        have_own_gates=[False],
        has_one_direction=False,
        is_explained=True,
    )
    first, second = arrays.by_name()["items"][0]["candidates"]
    assert first["ratings"] == {"b": {"value": 4.0, "scale": "0..4"}}
    assert second["ratings"]["b"]["value"] == 0.0
    assert first["score"] is None
