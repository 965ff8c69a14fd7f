"""A job that ends its server each time is not begun for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerward.jobs.attempts import MOST_ATTEMPTS, counted_attempt
from steerward.jobs.ending import can_go_on
from steerward.protocol.errors import NotReady


def crash(folder: Path) -> None:
    """Begin a run that does not come to its end."""
    run = counted_attempt(folder)
    run.__enter__()
    text = (folder / "attempts.json").read_text()
    run.__exit__(None, None, None)
    (folder / "attempts.json").write_text(text)


def test_crashes_without_progress_end_it(tmp_path: Path) -> None:
    for _ in range(MOST_ATTEMPTS):
        crash(tmp_path)
    with pytest.raises(NotReady, match="ended 3 times while it ran this job") as raised:
        crash(tmp_path)
    # The job is paused, and resumed it counts anew.
    assert can_go_on(raised.value)
    for _ in range(MOST_ATTEMPTS):
        crash(tmp_path)


def test_a_step_that_is_done_begins_a_new_count(tmp_path: Path) -> None:
    for number in range(2 * MOST_ATTEMPTS):
        crash(tmp_path)
        (tmp_path / f"block-{number}.parquet").write_text("")


def test_what_is_not_whole_is_no_progress(tmp_path: Path) -> None:
    for number in range(MOST_ATTEMPTS):
        crash(tmp_path)
        (tmp_path / f".policy.{number}.building").mkdir()
    with pytest.raises(NotReady):
        crash(tmp_path)


def test_ends_of_any_kind_are_no_crashes(tmp_path: Path) -> None:
    for _ in range(2 * MOST_ATTEMPTS):
        with counted_attempt(tmp_path):
            pass
        with pytest.raises(ZeroDivisionError), counted_attempt(tmp_path):
            raise ZeroDivisionError
    assert not [*tmp_path.iterdir()]
