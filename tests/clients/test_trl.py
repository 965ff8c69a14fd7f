"""Names of TRL's columns, without TRL; the trainers themselves are in the contract tests."""

from __future__ import annotations

import inspect
import pickle

import pytest

from steerward.clients.trl import reward_funcs

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_functions_have_the_names_and_kinds_that_trl_reads(asynchronous: bool) -> None:
    functions = reward_funcs(NOWHERE, objectives=["help-fulness"], asynchronous=asynchronous)
    for found in (functions, pickle.loads(pickle.dumps(functions))):
        names = [function.__name__ for function in found]
        assert names == ["steerward_score", "steerward_help-fulness"]
        assert all(inspect.iscoroutinefunction(f) is asynchronous for f in found)


def test_key_is_in_no_representation() -> None:
    (function,) = reward_funcs(NOWHERE, objectives=[], api_key="secret")
    assert "secret" not in repr(vars(function.__self__))
