"""The states of a job: which follow each other, and what asking for one means in each.

Pure: nothing here knows a database or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.fine_tuning import FINAL_STATUSES, JobStatus

JobAction = Literal["pause", "resume", "cancel"]
"""What people ask of a job."""
PendingRequest = Literal["none", "pause", "cancel"]
"""What whoever runs a job has been asked for and has not done yet."""

FOLLOWING: Mapping[JobStatus, frozenset[JobStatus]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    **dict.fromkeys(FINAL_STATUSES, frozenset[JobStatus]()),
}
"""Statuses that may follow each one; none follows a final one."""

_DONE_AT_ONCE: Mapping[JobAction, JobStatus] = {
    "pause": "paused",
    "resume": "queued",
    "cancel": "cancelled",
}


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is, and what it has been asked for."""

    status: JobStatus
    request: PendingRequest = "none"


def moved(state: JobState, status: JobStatus) -> JobState:
    """Return the state after a change of status; what was asked for is settled by it.

    Raises:
        InvalidRequest: If the status cannot follow.
    """
    if status not in FOLLOWING[state.status]:
        raise InvalidRequest(f"a job that is {state.status} cannot become {status}")
    return JobState(status)


def asked(state: JobState, action: JobAction, *, is_held: bool) -> JobState:
    """Return the state after somebody asked for something.

    Args:
        state: Before.
        action: What is asked for.
        is_held: Whether somebody runs the job and will do what it is asked; if not, it is done
            here and now.

    Raises:
        InvalidRequest: If it makes no sense in this state, which is named.
    """
    if state.status == "running":
        return _asked_while_running(state, action, is_held=is_held)
    target = _DONE_AT_ONCE[action]
    if target not in FOLLOWING[state.status] or (state.status, action) == ("queued", "resume"):
        raise InvalidRequest(f"the job is {state.status}; {_ways(state.status)}")
    return moved(state, target)


def settled(state: JobState) -> JobState:
    """Return the state of a running job that nobody runs any more.

    What it was asked for is done; a job that was asked for nothing waits for the next server.
    """
    done: Mapping[PendingRequest, JobStatus] = {
        "none": "queued",
        "pause": "paused",
        "cancel": "cancelled",
    }
    return moved(state, done[state.request])


def _asked_while_running(state: JobState, action: JobAction, *, is_held: bool) -> JobState:
    if state.request == "cancel" and action != "cancel":
        raise InvalidRequest("the job is running and about to be cancelled; that cannot be undone")
    if action == "resume":
        if state.request == "none":
            raise InvalidRequest(f"the job is running; {_ways('running')}")
        # It was to be paused and has not been yet.
        return JobState("running") if is_held else moved(state, "queued")
    pending = JobState("running", action)
    return pending if is_held else settled(pending)


def _ways(status: JobStatus) -> str:
    if status in FINAL_STATUSES:
        return "it can be neither paused, resumed nor cancelled; create a new one"
    if status == "paused":
        return "it can be resumed or cancelled"
    return "it can be paused or cancelled"
