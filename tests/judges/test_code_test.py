from __future__ import annotations

import sys
import threading

import pytest

from steerward.judges import CodeTests, Mixture, Sample, Verdict
from steerward.judges.sandbox import Limits, run
from steerward.protocol.errors import InvalidRequest
from tests.judges.asking import verdict_of

MISSING = set(CodeTests().must_isolate) - run("", "").isolation
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox runs on Linux only"),
    pytest.mark.skipif(bool(MISSING), reason=f"this machine does not isolate {sorted(MISSING)}"),
]

ADD = "Here you are:\n```python\ndef add(a, b):\n    return a + b\n```\nGood luck!"
RIGHT = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]


@pytest.mark.parametrize(
    ("completion", "tests", "verdict"),
    [
        (ADD, RIGHT, 1),
        (ADD, "\n".join(RIGHT), 1),
        (ADD, ["assert add(1, 2) == 4"], 0),
        ("I cannot write programs.", RIGHT, 0),
        ("```sh\nls\n```", RIGHT, 0),
        (ADD, None, None),
        (ADD, [], None),
        (ADD, "", None),
        (ADD, [3], -1),
        (ADD, 3, -1),
    ],
)
def test_the_program_of_a_completion_passes_the_rows_tests(
    completion: str, tests: object, verdict: int | None
) -> None:
    assert verdict_of(CodeTests(), completion, unit_tests=tests) == verdict


def test_tests_have_a_setup_and_an_entry_point() -> None:
    judge = CodeTests(setup_column="setup", entry_point_column="entry")
    tests = "def check(candidate):\n    assert math.isclose(candidate(1, 2), 3)"
    row = {"unit_tests": tests, "setup": "import math"}
    assert verdict_of(judge, ADD, **row, entry="add") == 1
    assert verdict_of(judge, ADD, **row, entry="missing") == 0
    assert verdict_of(judge, ADD, **row, entry="add) or print(") == -1


def test_a_sandbox_that_does_not_start_is_a_failure_of_the_judge() -> None:
    judge = CodeTests(must_isolate=("a kind that there is not",))  # type: ignore[arg-type]
    assert verdict_of(judge, ADD, unit_tests=RIGHT) == -1


def test_what_is_not_isolated_is_not_run_unless_asked_for() -> None:
    assert CodeTests().must_isolate == ("network", "files", "processes")
    assert verdict_of(CodeTests(must_isolate=()), ADD, unit_tests=RIGHT) == 1


def test_why_no_program_runs_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = CodeTests(must_isolate=("another kind",))  # type: ignore[arg-type]
    for _ in range(2):
        assert verdict_of(judge, ADD, unit_tests=RIGHT) == -1
    assert caplog.text.count("does not isolate another kind") == 1


def test_several_programs_keep_their_order() -> None:
    judge = CodeTests(limits=Limits(wall_s=60.0), num_workers=4)
    texts = [f"import time\ntime.sleep({0.2 if i < 2 else 0})\nx = {i}" for i in range(4)]
    rows = [{"unit_tests": f"assert x == {i if i % 2 else -1}"} for i in range(4)]
    judged = Mixture([judge]).judge(["p"] * 4, texts, rows=rows)
    assert judged.satisfied == [False, True] * 2
    assert judge.judge([], []) == []


def test_as_many_programs_as_workers_run_at_once() -> None:
    """Each waits for the other: one after the other would never end well."""
    both = threading.Barrier(2)

    class Meeting(CodeTests):
        def decide(self, sample: Sample) -> Verdict | None:
            both.wait(timeout=60.0)
            return 1 if sample.completion else 0

    assert Meeting(num_workers=2).judge(["p", "p"], ["a", "b"]) == [1, 1]


def test_no_workers_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="num_workers is 0"):
        CodeTests(num_workers=0)
