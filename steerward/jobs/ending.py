"""What an error means for a job: whether it can go on, and what its people are told."""

from __future__ import annotations

from steerward.jobs.disk import is_out_of_room
from steerward.protocol.errors import SteerwardError, StorageFull


def explained(error: BaseException) -> SteerwardError:
    """Return an error as users of jobs understand it."""
    if isinstance(error, SteerwardError):
        return error
    if isinstance(error, OSError) and is_out_of_room(error):
        return StorageFull(
            f"the disk is full ({error.strerror}); nothing that was done is lost: make room"
        )
    return SteerwardError(
        f"the job met an error that nobody expected ({type(error).__name__}); the server's log "
        "has the cause"
    )


def can_go_on(error: SteerwardError) -> bool:
    """Return whether a job that met an error goes on once its reason is gone."""
    return error.is_retryable or isinstance(error, StorageFull)
