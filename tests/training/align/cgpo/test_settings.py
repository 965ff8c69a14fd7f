"""Settings and rows with which CGPO would be something else are refused before loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.cgpo.settings import REFERENCE_BETA, check_rows, prepared
from steerward.training.align.cgpo.tasks import Task
from tests.training.align.cgpo.runs import rows_of, settings

CRPG = Task("one", "letters")
CODPO = Task("one", "letters", optimizer="codpo")
CRRAFT = Task("one", "letters", optimizer="crraft")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_type", "dapo"),
        ("beta", 0.04),
        ("mask_truncated_completions", True),
        ("remove_unused_columns", True),
        ("top_entropy_quantile", 0.5),
    ],
)
def test_setting_of_another_gradient_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} is .*set it to"):
        prepared(settings(tmp_path, **{name: value}), [CRPG], allow_off_policy=False)


def test_beta_is_set_on_a_copy(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert prepared(given, [CRPG], allow_off_policy=False).beta == REFERENCE_BETA
    assert given.beta == 0.0


@pytest.mark.parametrize("changes", [{"num_iterations": 2}, {"steps_per_generation": 4}])
def test_codpo_on_old_samples_is_refused_with_the_reason(changes: Any, tmp_path: Path) -> None:
    given = settings(tmp_path, gradient_accumulation_steps=1, **changes)
    with pytest.raises(InvalidRequest, match=r"clipped sample by sample.*allow_off_policy"):
        prepared(given, [CRPG, CODPO], allow_off_policy=False)
    prepared(given, [CODPO], allow_off_policy=True)
    prepared(given, [CRPG, CRRAFT], allow_off_policy=False)


def test_rows_without_a_needed_column_are_refused() -> None:
    rows = rows_of(["one"] * 2)
    check_rows(rows, [CRRAFT])
    check_rows(rows.remove_columns(["baseline"]), [CRPG])
    for column in ("task", "baseline_reward", "baseline", "baseline_satisfied"):
        with pytest.raises(DatasetRefused, match=column):
            check_rows(rows.remove_columns([column]), [CRRAFT])


def test_baseline_without_a_reward_is_refused_by_row() -> None:
    rows = Dataset.from_dict({"task": ["one"] * 2, "baseline_reward": [1.0, float("nan")]})
    with pytest.raises(DatasetRefused, match="row 1 has baseline_reward nan"):
        check_rows(DatasetDict({"all": rows}), [CRPG])


def test_rows_that_cannot_be_looked_at_are_refused() -> None:
    with pytest.raises(DatasetRefused, match="datasets.Dataset"):
        check_rows(rows_of(["one"]).to_iterable_dataset(), [CRPG])
    check_rows(None, [CRPG])
