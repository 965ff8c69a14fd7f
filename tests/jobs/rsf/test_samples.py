"""Samples in files: what comes back, in which order, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from steerward.jobs.rsf.samples import SCHEMA, SampleRow, read_samples, write_samples
from steerward.protocol.errors import DatasetRefused, NonFiniteScore


def a_row(**fields: Any) -> SampleRow:
    row = SampleRow(
        job_id="ftjob-1",
        iteration=2,
        number=3,
        prompt_row=17,
        direction_index=1,
        direction={"helpfulness": 0.8, "verbosity": -0.6},
        sample=4,
        sample_seed=2**31 - 1,
        prompt=({"role": "user", "content": "Why is the sky blue? – \u2603"},),
        completion="Light\nscatters.",
        tokens=5,
        is_finished=True,
        rewards={"helpfulness": 0.7, "verbosity": 0.1},
        score=0.5,
        direction_score=0.62,
        policy_weight_version="p1",
        reward_model="pocket",
        reward_weight_version="r1",
    )
    return dataclasses.replace(row, **fields)


CHOSEN = a_row(selected_for=(1, 4), reason="best", pool_scores={1: 0.62, 4: -0.1})
REFUSED = a_row(tokens=None, score=None, is_finished=False, completion="", reason="empty")


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, [CHOSEN, REFUSED])
    assert read_samples(path) == [CHOSEN, REFUSED]
    assert [row.selected for row in read_samples(path)] == [True, False]
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.parquet"]


def test_files_can_be_queried_by_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, [CHOSEN, REFUSED])
    table = parquet.read_table(path, filters=[("selected", "=", True)])
    assert table.schema.names == SCHEMA.names
    (row,) = table.to_pylist()
    assert row["direction_score"] == 0.62
    assert row["selected_for"] == [1, 4]
    assert dict(row["rewards"]) == {"helpfulness": 0.7, "verbosity": 0.1}


def test_files_of_a_folder_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        write_samples(tmp_path / f"part-{number}.parquet", [a_row(number=number)])
    (tmp_path / ".part-1.parquet.7.building").write_bytes(b"half")
    assert [row.number for row in read_samples(tmp_path)] == [9, 10, 100]


def test_a_file_of_no_samples_is_one(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.parquet", [])
    assert read_samples(tmp_path / "samples.parquet") == []


def test_writing_again_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, [REFUSED])
    write_samples(path, [CHOSEN])
    assert read_samples(path) == [CHOSEN]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    write_samples(path, [CHOSEN])
    with pytest.raises((pa.ArrowException, UnicodeEncodeError)):
        write_samples(path, [a_row(completion="\ud800")])
    assert read_samples(path) == [CHOSEN]
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.parquet"]


@pytest.mark.parametrize("keep", [0, 3, 600, -9], ids=["empty", "start", "half", "end missing"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "part-3.parquet"
    write_samples(path, [CHOSEN, REFUSED])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetRefused, match=r"part-3\.parquet is no whole file of samples"):
        read_samples(tmp_path)


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DatasetRefused, match=r"other\.parquet"):
        read_samples(path)


def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_samples(tmp_path / "samples.parquet")


@pytest.mark.parametrize(
    "fields",
    [
        {"direction_score": float("nan")},
        {"rewards": {"helpfulness": float("inf")}},
        {"pool_scores": {0: float("nan")}},
    ],
)
def test_no_sample_has_a_reward_that_is_no_number(fields: dict[str, Any]) -> None:
    with pytest.raises(NonFiniteScore, match="sample 4 of prompt 3 in iteration 2"):
        a_row(**fields)
