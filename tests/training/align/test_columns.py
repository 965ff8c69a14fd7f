from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.columns import build_columns


def lengths(names: Sequence[str]) -> list[Any]:
    def made(name: str) -> Any:
        def column(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> Any:
            return [float(len(one)) if one else None for one in completions]

        column.__name__ = f"source_{name}"
        return column

    return [made(name) for name in names]


def test_columns_have_the_names_of_the_settings_and_weights_above_zero() -> None:
    columns = build_columns(lengths, {"helpfulness": 1.0, "verbosity": -0.5}, logged=["score"])
    assert columns.names == ["helpfulness", "less_verbosity", "score"]
    assert columns.weights == {"helpfulness": 1.0, "less_verbosity": 0.5}


def test_where_less_is_better_the_reward_has_the_other_sign_and_none_stays() -> None:
    more, less = build_columns(lengths, {"a": 1.0, "b": -2.0}).functions
    given: dict[str, Any] = {"prompts": ["p", "p"], "completions": ["four", ""]}
    assert more(**given) == [4.0, None]
    assert less(**given) == [-4.0, None]


def test_a_column_keeps_its_name_where_a_sweep_ends() -> None:
    assert build_columns(lengths, {"a": -0.0}).weights == {"less_a": 0.0}


def test_a_function_that_is_async_stays_so() -> None:
    def source(names: Sequence[str]) -> list[Any]:
        async def column(**_: Any) -> list[float]:
            return [1.0]

        return [column]

    (function,) = build_columns(source, {"a": -1.0}).functions
    assert asyncio.iscoroutinefunction(function)
    assert asyncio.run(function(prompts=[], completions=[])) == [-1.0]


def test_a_source_that_leaves_one_out_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 functions for 1 objectives"):
        build_columns(lambda _: [], {"a": 1.0})
