"""A job never leaves a final state, and is asked only for what makes sense."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.states import FOLLOWING, JobAction, JobState, asked, moved, settled
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.fine_tuning import FINAL_STATUSES, JobStatus

STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)
ACTIONS: tuple[JobAction, ...] = get_args(JobAction)

Step = tuple[JobAction, bool] | JobStatus | None

requests = st.tuples(st.sampled_from(ACTIONS), st.booleans())
steps = st.lists(st.one_of(requests, st.sampled_from(STATUSES), st.none()))


def after(state: JobState, step: Step) -> JobState:
    """Return the state after a request, a change of status, or the owner's death."""
    if step is None:
        return settled(state)
    if isinstance(step, tuple):
        return asked(state, step[0], is_held=step[1])
    return moved(state, step)


@given(steps)
def test_a_final_state_is_never_left(steps: list[Step]) -> None:
    state = JobState("queued")
    for step in steps:
        try:
            changed = after(state, step)
        except InvalidRequest:
            continue
        assert state.status not in FINAL_STATUSES
        assert changed.status in FOLLOWING[state.status] | {state.status}
        assert changed.request == "none" or changed.status == "running"
        state = changed


def test_every_status_can_be_reached_and_has_a_rule() -> None:
    assert set(FOLLOWING) == set(STATUSES)
    assert {"queued"}.union(*FOLLOWING.values()) == set(STATUSES)


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_can_be_asked_of_a_job_that_has_ended(status: JobStatus, action: JobAction) -> None:
    with pytest.raises(InvalidRequest, match=f"the job is {status}.*create a new one"):
        asked(JobState(status), action, is_held=False)


@pytest.mark.parametrize(
    ("status", "action", "expected"),
    [
        ("queued", "pause", "paused"),
        ("queued", "cancel", "cancelled"),
        ("paused", "resume", "queued"),
        ("paused", "cancel", "cancelled"),
    ],
)
def test_a_job_that_nobody_runs_changes_at_once(
    status: JobStatus, action: JobAction, expected: JobStatus
) -> None:
    assert asked(JobState(status), action, is_held=False) == JobState(expected)


@pytest.mark.parametrize(
    ("status", "action"), [("queued", "resume"), ("paused", "pause"), ("running", "resume")]
)
@pytest.mark.parametrize("is_held", [True, False])
def test_what_makes_no_sense_is_refused_with_the_status(
    status: JobStatus, action: JobAction, is_held: bool
) -> None:
    with pytest.raises(InvalidRequest, match=f"the job is {status}; it can be"):
        asked(JobState(status), action, is_held=is_held)


@pytest.mark.parametrize(("action", "expected"), [("pause", "paused"), ("cancel", "cancelled")])
def test_whoever_runs_a_job_is_asked_and_a_lost_one_is_settled(
    action: Literal["pause", "cancel"], expected: JobStatus
) -> None:
    pending = asked(JobState("running"), action, is_held=True)
    assert pending == JobState("running", action)
    # Asked again by a client that got no answer.
    assert asked(pending, action, is_held=True) == pending
    assert settled(pending) == JobState(expected)
    assert asked(JobState("running"), action, is_held=False) == JobState(expected)


def test_a_pause_can_be_withdrawn_or_made_a_cancel_and_a_cancel_stands() -> None:
    pausing = JobState("running", "pause")
    assert asked(pausing, "resume", is_held=True) == JobState("running")
    assert asked(pausing, "resume", is_held=False) == JobState("queued")
    cancelling = asked(pausing, "cancel", is_held=True)
    assert cancelling == JobState("running", "cancel")
    for action in ("pause", "resume"):
        with pytest.raises(InvalidRequest, match="running and about to be cancelled"):
            asked(cancelling, action, is_held=True)


def test_a_job_that_was_asked_for_nothing_waits_for_the_next_server() -> None:
    assert settled(JobState("running")) == JobState("queued")
