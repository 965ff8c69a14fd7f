"""A file on its way in, for an event loop: pieces are checked and written on a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from steerward.jobs.upload import Upload
from steerward.protocol.files import FileObject

ResultT = TypeVar("ResultT")


class IncomingFile:
    """Takes the pieces of a file.

    Args:
        upload: Where they go.
        threads: That write them.
    """

    def __init__(self, upload: Upload, threads: Executor) -> None:
        self._upload = upload
        self._threads = threads
        # A call that is cancelled goes on in its thread, and another closes the upload meanwhile.
        self._one_at_a_time = threading.Lock()

    async def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            InputTooLong: If the file becomes larger than a file may be.
            SteerwardError: If the disk refuses.
        """
        await self._run(lambda: self._upload.write(piece))

    async def finish(self) -> FileObject:
        """Keep the file.

        Raises:
            InvalidRequest: If a row is wrong, or there is none.
            InputTooLong: If there are too many rows, or one is too long.
            SteerwardError: If the disk refuses.
        """
        return await self._run(self._upload.finish)

    async def aclose(self) -> None:
        """Leave nothing behind of a file that was not finished."""
        await self._run(self._upload.abort)

    async def _run(self, call: Callable[[], ResultT]) -> ResultT:
        def run() -> ResultT:
            with self._one_at_a_time:
                return call()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)
