"""Names of TRL's columns, without TRL; the trainers themselves are in the contract tests."""

from __future__ import annotations

import pytest

from steerward.clients.trl import reward_funcs
from tests.other_process import in_another_process, names_and_kinds

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_functions_have_the_names_and_kinds_that_trl_reads(asynchronous: bool) -> None:
    functions = reward_funcs(NOWHERE, objectives=["help-fulness"], asynchronous=asynchronous)
    expected = [("steerward_score", asynchronous), ("steerward_help-fulness", asynchronous)]
    assert names_and_kinds(functions) == expected
    # Where the asynchronous trainer sends them.
    assert in_another_process(names_and_kinds, functions) == expected


def test_key_is_in_no_representation() -> None:
    (function,) = reward_funcs(NOWHERE, objectives=[], api_key="secret")
    assert "secret" not in repr(vars(function.__self__))
