"""What every process that trains for a job has in common with the server that started it.

It is given a job file in its work folder, and prints lines of JSON; what its libraries print goes
to a log beside. Its standard input stays open as long as the server lives.
"""

from __future__ import annotations

from steerward.protocol.wire import AnswerModel

LOG_FILE = "trainer.log"
"""In the work folder: what the process and its libraries wrote."""
JOB_FILE = "job.json"
"""In the work folder: what the process was given."""
END_WITH_PARENT = "--end-with-parent"
"""Lets the process end as soon as its standard input does."""
ORPHANED_STATUS = 70
"""Of a process whose parent has gone."""
STORAGE_FULL_STATUS = 75
"""Of a process that found no room to write."""


class ProcessFailure(AnswerModel):
    """The last line of a process that failed."""

    failed: str
    """Class of the error."""
    message: str
    is_storage_full: bool = False
