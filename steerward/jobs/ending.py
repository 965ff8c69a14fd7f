"""What an error means for a job: whether it can go on, and what its people are told."""

from __future__ import annotations

import errno

from steerward.protocol.errors import SteerwardError, StorageFull

# A full disk, a full quota, and the largest file that the system lets a process write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explained(error: BaseException) -> SteerwardError:
    """Return an error as users of jobs understand it."""
    if isinstance(error, SteerwardError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
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
