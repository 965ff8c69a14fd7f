"""Instruction-following accuracy: counted by hand on small rows in the published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.evaluation.bootstrap import share_interval
from steerward.evaluation.if_eval import evaluate_instructions
from steerward.evaluation.if_eval_report import InstructionReport
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from tests.evaluation.cases import Fields, write_lines

WORDS = "length_constraints:number_words"


def asked(key: int, prompt: str, **instructions: dict[str, Any]) -> Fields:
    """A row; two underscores stand for the colon of an id."""
    return {
        "key": key,
        "prompt": prompt,
        "instruction_id_list": [name.replace("__", ":") for name in instructions],
        "kwargs": list(instructions.values()),
    }


ROWS = [
    asked(1, "Write.", punctuation__no_comma={}, detectable_format__title={}),
    asked(
        2,
        "Write more.",
        length_constraints__number_words={"num_words": 3, "relation": "at least"},
        punctuation__no_comma={},
    ),
    asked(3, "Quote.", startend__quotation={}),
    asked(4, "Say nothing.", punctuation__no_comma={}),
]
ANSWERS = {
    "Write.": "<<One>>\nNo comma",  # both
    "Write more.": "Sure, here:\none two three",  # words; without a comma only loosely
    "Quote.": 'Here it is:\n"All"',  # only loosely
    "Say nothing.": " ",  # blank: nothing
}


def answered(answers: dict[str, str]) -> list[Fields]:
    return [{"prompt": prompt, "response": text} for prompt, text in answers.items()]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "responses.jsonl", answered(ANSWERS))


@pytest.fixture
def report(rows: Path, responses: Path) -> InstructionReport:
    return evaluate_instructions([rows], responses)


def test_prompts_and_instructions_are_counted_in_both_readings(report: InstructionReport) -> None:
    prompt, instruction = report.prompt_level, report.instruction_level
    assert (prompt.strict.met, prompt.loose.met, prompt.counted) == (1, 3, 4)
    assert (instruction.strict.met, instruction.loose.met, instruction.counted) == (3, 5, 6)
    assert prompt.strict.value == 1 / 4
    assert instruction.loose.value == 5 / 6


def test_families_and_kinds_are_counted_apart(report: InstructionReport) -> None:
    families = {line.name: line for line in report.families}
    assert list(families) == [
        "detectable_format",
        "length_constraints",
        "punctuation",
        "startend",
    ]
    punctuation = families["punctuation"]
    assert (punctuation.strict.met, punctuation.loose.met, punctuation.counted) == (1, 2, 3)
    assert {line.name: line.strict.value for line in report.kinds} == {
        "detectable_format:title": 1,
        WORDS: 1,
        "punctuation:no_comma": 1 / 3,
        "startend:quotation": 0,
    }


def test_loose_accuracy_is_never_below_strict(report: InstructionReport) -> None:
    for line in (report.prompt_level, report.instruction_level, *report.families, *report.kinds):
        assert line.loose.met >= line.strict.met
        for one in (line.strict, line.loose):
            assert one.interval.low <= one.value <= one.interval.high


def test_intervals_are_the_seed_s(rows: Path, responses: Path, report: InstructionReport) -> None:
    assert evaluate_instructions([rows], responses).as_json() == report.as_json()
    other = evaluate_instructions([rows], responses, seed=5, resamples=50)
    assert other.as_json()["bootstrap"] == {"resamples": 50, "seed": 5, "share": 0.95}
    assert other.instruction_level.strict.value == report.instruction_level.strict.value
    with pytest.raises(InvalidRequest, match="0 resamples; ask for at least 1"):
        evaluate_instructions([rows], responses, resamples=0)


def test_interval_has_the_width_of_a_share() -> None:
    """Of 400 prompts with half met, 1.96 standard errors are 4.9 points."""
    low_high = share_interval([(1, 1), (0, 1)] * 200, resamples=1000, seed=0)
    assert low_high.low == pytest.approx(0.451, abs=0.01)
    assert low_high.high == pytest.approx(0.549, abs=0.01)


def test_instructions_of_one_prompt_are_drawn_together() -> None:
    apart = share_interval([(1, 1), (0, 1)] * 100, resamples=400, seed=0)
    together = share_interval([(4, 4), (0, 4)] * 25, resamples=400, seed=0)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(3, 4)), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_interval_lies_within_the_groups(groups: list[tuple[int, int]], seed: int) -> None:
    found = share_interval(groups, resamples=40, seed=seed)
    shares = [met / parts for met, parts in groups]
    assert min(shares) <= found.low + 1e-12
    assert found.low <= found.high <= max(shares) + 1e-12


def test_report_says_what_it_rests_on(report: InstructionReport, rows: Path) -> None:
    told = report.as_json()
    assert json.loads(json.dumps(told)) == told
    assert told["headline"] == {"name": "prompt-level strict", "value": 0.25}
    assert told["blank_responses"] == 1
    assert told["files"][0]["name"] == rows.name
    assert told["files"][0]["rows"] == told["rows"] == 4
    assert told["families"]["startend"]["loose"]["met"] == 1
    assert any("1 responses are blank" in note for note in told["notes"])


def test_report_reads_as_text_and_as_markdown(report: InstructionReport) -> None:
    text = report.as_text()
    assert "4 prompts, 6 instructions; responses of responses.jsonl" in text
    (line,) = [line for line in text.splitlines() if line.startswith("instruction  ")]
    assert line.split()[1] == "50.0"
    assert line.split()[3:] == ["83.3", line.split()[4], "6", "4"]
    markdown = report.as_markdown()
    assert "| kind | strict | 95 % | loose | 95 % | counted | prompts |" in markdown
    assert "| startend:quotation | 0.0 | 0.0-0.0 | 100.0 | 100.0-100.0 | 1 | 1 |" in markdown


def test_rows_of_a_table_carry_every_argument(tmp_path: Path, responses: Path) -> None:
    """Parquet gives each row the arguments of all kinds, most of them null."""
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    report = evaluate_instructions([path], responses)
    assert report.instruction_level.strict.met == 3


def test_rows_of_several_files_are_one_set(tmp_path: Path, responses: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_lines(folder / "a.jsonl", ROWS[:2])
    write_lines(folder / "b.jsonl", ROWS[2:])
    report = evaluate_instructions([folder], responses)
    assert [file.rows for file in report.files] == [2, 2]
    assert report.prompt_level.counted == 4


def test_missing_response_is_refused_with_its_row(tmp_path: Path, rows: Path) -> None:
    some = {prompt: ANSWERS[prompt] for prompt in ("Write.", "Quote.")}
    path = write_lines(tmp_path / "some.jsonl", answered(some))
    reason = r"some.jsonl has no response to the prompts of 2 of 4 rows, the first of rows.jsonl, "
    with pytest.raises(DatasetRefused, match=reason + r"row 1 \(key 2\)"):
        evaluate_instructions([rows], path)


def test_response_to_no_row_is_told(tmp_path: Path, rows: Path) -> None:
    path = write_lines(tmp_path / "more.jsonl", answered({**ANSWERS, "Else?": "No."}))
    report = evaluate_instructions([rows], path)
    assert report.unused_responses == 1
    assert any("to prompts of no row" in note for note in report.notes)


def test_prompt_that_is_there_twice_is_refused(tmp_path: Path, rows: Path, responses: Path) -> None:
    again = write_lines(tmp_path / "again.jsonl", [ROWS[2]])
    with pytest.raises(DatasetRefused, match=r"again.jsonl, row 0 .* prompt as rows.jsonl, row 2"):
        evaluate_instructions([rows, again], responses)
    with pytest.raises(DatasetRefused, match=r"rows.jsonl, row 0 .* same prompt as rows.jsonl"):
        evaluate_instructions([rows, rows], responses)  # the same file, given twice
    twice = write_lines(tmp_path / "twice.jsonl", [*answered(ANSWERS), *answered(ANSWERS)])
    with pytest.raises(DatasetRefused, match=r"twice.jsonl, row 4 has the same prompt as .* row 0"):
        evaluate_instructions([rows], twice)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (asked(1, "a", punctuation__no_colon={}), r"row 0: instruction 0: .*no_colon; known: "),
        (asked(1, "a", length_constraints__number_words={}), "row 0: instruction 0: .* num_words"),
        ({**ROWS[0], "kwargs": [{}]}, "row 0: 2 instructions and arguments of 1"),
        ({**ROWS[0], "instruction_id_list": []}, "row 0: instruction_id_list: "),
        ({"prompt": "a"}, "row 0: instruction_id_list: .*; kwargs: "),
    ],
    ids=["kind", "argument", "lengths", "none", "columns"],
)
def test_wrong_row_is_named(tmp_path: Path, responses: Path, row: Fields, reason: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DatasetRefused, match=reason):
        evaluate_instructions([path], responses)


def test_responses_that_cannot_be_read_are_refused(tmp_path: Path, rows: Path) -> None:
    with pytest.raises(DatasetRefused, match=r"no file .*absent.jsonl of responses"):
        evaluate_instructions([rows], tmp_path / "absent.jsonl")
    path = write_lines(tmp_path / "wrong.jsonl", [{"prompt": "Write.", "response": None}])
    with pytest.raises(DatasetRefused, match="wrong.jsonl, row 0: response: "):
        evaluate_instructions([rows], path)
    empty = write_lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(DatasetRefused, match="empty.jsonl: no rows"):
        evaluate_instructions([empty], path)
