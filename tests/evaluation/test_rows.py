"""Rows are read from every published kind of file, and a wrong one is named."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from steerward.evaluation.benchmarks import BENCHMARKS
from steerward.evaluation.files import read_fields
from steerward.evaluation.rows import read_rows
from steerward.protocol.errors import DatasetRefused
from tests.evaluation.cases import WHOLE, Fields, choice, pair, styled, write_lines

ROWS: list[Fields] = [*WHOLE["reward-bench-2"]]


def write_as(folder: Path, ending: str) -> Path:
    path = folder / f"test{ending}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif ending == ".json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif ending == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("ending", [".parquet", ".json", ".jsonl", ".jsonl.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = write_as(tmp_path, ending)
    rows, (file,) = read_rows([path], BENCHMARKS["reward-bench-2"].read_row)
    assert [placed.number for placed in rows] == list(range(len(ROWS)))
    assert [placed.row.candidates for placed in rows] == [
        row["chosen"] + row["rejected"] for row in ROWS
    ]
    assert (file.name, file.rows) == (path.name, len(ROWS))
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_line_separators_inside_a_text_end_no_row(tmp_path: Path) -> None:
    row = pair("hep-go", prompt="one\u2028two\u0085three")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert list(read_fields(path)) == [row]


def test_folder_stands_for_its_data_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [pair("hep-js")])
    write_lines(tmp_path / "a.jsonl", [pair("hep-go")])
    (tmp_path / "README.md").write_text("no data")
    rows, files = read_rows([tmp_path], BENCHMARKS["reward-bench"].read_row)
    assert [file.name for file in files] == ["a.jsonl", "b.jsonl"]
    assert [placed.row.subset for placed in rows] == ["hep-go", "hep-js"]


def test_row_in_two_files_is_refused(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "chat_filtered.jsonl", [styled("chat")])
    both = write_lines(tmp_path / "total_dataset.jsonl", [styled("math"), styled("chat")])
    with pytest.raises(DatasetRefused, match=r"total_dataset.jsonl, row 1 \(id 1\) is the same as"):
        read_rows([one, both], BENCHMARKS["rm-bench"].read_row)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([json.dumps(choice("Math")), "{"], "rows.jsonl, row 1: not JSON"),
        (['"text"'], "rows.jsonl, row 0: not a JSON object"),
        ([json.dumps({**choice("Math"), "chosen": "7"})], "row 0: chosen: "),
        ([json.dumps(choice("Math", chosen=["7", "5"]))], "row 0: 2 chosen answers"),
        ([], "rows.jsonl: no rows"),
    ],
    ids=["json", "object", "type", "rule", "empty"],
)
def test_wrong_row_is_named(tmp_path: Path, lines: list[str], reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(DatasetRefused, match=reason):
        read_rows([path], BENCHMARKS["reward-bench-2"].read_row)


def test_file_that_is_none_of_the_kinds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"no such thing")
    with pytest.raises(DatasetRefused, match=r"rows.parquet cannot be read"):
        read_rows([path], BENCHMARKS["reward-bench-2"].read_row)
    with pytest.raises(DatasetRefused, match="there is no file or folder"):
        read_rows([tmp_path / "absent.jsonl"], BENCHMARKS["reward-bench-2"].read_row)
