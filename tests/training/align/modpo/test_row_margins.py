"""Margins that rows bring are read in every form, and are neither missing nor there twice."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused
from steerward.training.align.modpo.row_margins import has_margins, row_margins
from steerward.training.align.rows import PairRow

WEIGHTS = {"kind": 0.5, "long": -1.0}


def row(chosen: Any = None, rejected: Any = None) -> PairRow:
    columns = {"margin_chosen": chosen, "margin_rejected": rejected}
    given = {name: value for name, value in columns.items() if value is not None}
    return PairRow(({"role": "user", "content": "a"},), "b", "c", given)


def test_objects_and_lists_are_the_same_and_less_has_the_other_sign() -> None:
    found = row_margins([row({"long": 3, "kind": 1, "other": 9}, [2, 4.5])], WEIGHTS)
    assert found == {"margin_chosen": [[1.0, -3.0]], "margin_rejected": [[2.0, -4.5]]}


def test_weight_that_a_sweep_brought_to_0_keeps_its_sign() -> None:
    found = row_margins([row(2.0, [1.0])], {"long": -0.0})
    assert found == {"margin_chosen": [[-2.0]], "margin_rejected": [[-1.0]]}


def test_one_column_is_enough_to_be_asked_for_both() -> None:
    assert has_margins(row([1, 2]))
    assert not has_margins(row())
    with pytest.raises(
        DatasetRefused, match=r"pair 1 has margin_rejected \[None\], and the .* long"
    ):
        row_margins([row([1, 2], [3, 4]), row([1, 2])], WEIGHTS)


@pytest.mark.parametrize("value", [1.0, [1.0], [1.0, "2"], [1.0, True], {"kind": 1.0}])
def test_row_that_lacks_a_number_is_refused(value: Any) -> None:
    with pytest.raises(DatasetRefused, match="give a number for each in every pair"):
        row_margins([row(value, value)], WEIGHTS)


def test_margin_that_comes_from_another_place_too_is_refused() -> None:
    given = row({"kind": 1, "long": 2, "brevity": 3}, {"kind": 1, "long": 2})
    with pytest.raises(DatasetRefused, match="pair 0 has margin_chosen of brevity, whose margins"):
        row_margins([given], WEIGHTS, elsewhere=["safety", "brevity"])
    with pytest.raises(DatasetRefused, match="all margins come from adapters"):
        row_margins([row(1.0, 2.0)], {}, elsewhere=["brevity"])
    assert row_margins([given], WEIGHTS, elsewhere=["safety"])["margin_chosen"] == [[1.0, -2.0]]
