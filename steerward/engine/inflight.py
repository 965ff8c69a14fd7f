"""Equal items in flight are computed once: whoever comes second waits for the first one's scores.

An item is equal to another if its token groups are. It joins one that waits or runs and is due no
later, so nobody waits longer for having joined; shared work keeps its own deadline. Work goes on
while anyone waits for it and is cancelled by the last who leaves. Nothing is remembered of what
has been answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from steerward.engine.items import ItemOutput, ScoringItem, Submission
from steerward.models.packing import Group


@dataclass(slots=True, eq=False)
class _Work:
    """An item in flight and who waits for it. Used on its event loop only."""

    key: bytes
    item: ScoringItem
    submission: Submission
    """Of the request that came first."""
    num_waiters: int = 0


class Ticket:
    """One request's claim on an item in flight; `leave` must be called once, at the end."""

    def __init__(self, work: _Work, groups: Sequence[Group], *, has_joined: bool) -> None:
        self.work = work
        self._groups = groups
        self._joined_at = time.perf_counter() if has_joined else None
        work.num_waiters += 1

    @property
    def item(self) -> ScoringItem:
        """The item, perhaps another request's."""
        return self.work.item

    @property
    def is_own(self) -> bool:
        """Whether the item is this request's, to be queued by it."""
        return self._joined_at is None

    @property
    def has_failed(self) -> bool:
        """Whether the item came out as an error."""
        future = self.item.future
        return future.done() and not future.cancelled() and future.exception() is not None

    async def output(self) -> ItemOutput:
        """Return the scores; a caller that is cancelled does not cancel the item.

        Raises:
            SteerwardError: What became of the item, for all who wait.
        """
        output = await asyncio.shield(self.item.future)
        if self._joined_at is None:
            return output
        late_s = self._joined_at - self.item.enqueued_at
        queue_s = max(0.0, output.queue_s - late_s)
        return dataclasses.replace(
            output,
            queue_s=queue_s,
            inference_s=max(0.0, output.queue_s + output.inference_s - late_s - queue_s),
            # Not one token of a prompt was computed for this request.
            tokens_saved=sum(len(group.prefix) * len(group.suffixes) for group in self._groups),
            tokens_cached=sum(len(group.prefix) for group in self._groups),
        )


class InFlight:
    """The items of an engine that wait or run, by their tokens."""

    def __init__(self) -> None:
        self._works: dict[bytes, _Work] = {}

    def __len__(self) -> int:
        return len(self._works)

    def join(self, groups: Sequence[Group], submission: Submission) -> Ticket:
        """Return a ticket for the scores of these groups.

        Args:
            groups: Of one item.
            submission: Of the request that wants them. If the item is its own, it is to be queued
                with it.
        """
        key = _digest(groups)
        work = self._works.get(key)
        if (
            work is not None
            and not work.item.is_cancelled
            and work.submission.deadline <= submission.deadline
        ):
            return Ticket(work, groups, has_joined=True)
        future = asyncio.get_running_loop().create_future()
        work = _Work(key, ScoringItem(future, time.perf_counter()), submission)
        self._works[key] = work
        future.add_done_callback(lambda _: self._forget(work))
        return Ticket(work, groups, has_joined=False)

    def leave(self, ticket: Ticket) -> Submission | None:
        """Give a ticket back; without a waiter the item is cancelled and need not run.

        Returns:
            The submission that holds chunks nobody waits for any more, if one does.
        """
        work = ticket.work
        work.num_waiters -= 1
        if work.num_waiters:
            return None
        work.item.is_cancelled = True
        self._forget(work)
        if work.item.future.done():
            with contextlib.suppress(asyncio.CancelledError):
                work.item.future.exception()
        else:
            work.item.future.cancel()
        return work.submission if work.submission.chunks else None

    def _forget(self, work: _Work) -> None:
        if self._works.get(work.key) is work:
            del self._works[work.key]


def _digest(groups: Sequence[Group]) -> bytes:
    """Return what is equal for equal groups only: each list goes in behind its length."""
    digest = hashlib.blake2b(digest_size=32)
    for group in groups:
        digest.update(array("q", [group.gating_position, len(group.suffixes)]).tobytes())
        for ids in (group.prefix, *group.suffixes):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(array("q", ids).tobytes())
    return digest.digest()
