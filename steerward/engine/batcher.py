"""Which chunks run next: pure decisions on a queue, no thread, no tensor and no clock.

A forward pass serves requests in the order of their deadlines, equal ones in order of arrival. Up
to a quarter of its tokens go first to the request with the fewest tokens left, then to the next
smallest, so that one candidate never waits behind a stream of large requests.

What this promises, in tokens that the device computes, B being the budget of a pass:

- Tokens given out of turn to small requests never exceed a third of those given in turn, plus B.
  So a request is done before the device has computed 4/3 of the tokens that are due no later
  than it, its own included, and 2 B more, whatever else comes in.
- A request of one chunk of up to B/4 is in the next pass that is put together, unless smaller
  ones have had that share; or in the pass after, if the chunk whose turn it is leaves no quarter
  free. A larger chunk waits until the passes before it have saved up its tokens.
- A pass is over B only if its first chunk alone is.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from steerward.engine.items import Chunk, Submission
from steerward.models.packing import Group

# Deadlines closer than this are one step of the backlog, which bounds its length.
_DUE_STEP_S = 0.125


class Tally(Protocol):
    """What chunks cost in the pass that is being put together."""

    def cost(self, chunk: Chunk) -> int | None:
        """Return the tokens that the chunk would add to the pass; never more later on.

        None if it can be in no pass: who waits for it has been told, and it is dropped.
        """
        ...

    def add(self, chunk: Chunk) -> None:
        """Note that the chunk is in the pass."""
        ...


class PrefixTally:
    """A chunk costs what it would alone, or its suffixes if a chunk of the pass has its prefix.

    Args:
        cost: Returns the tokens that a pass of one chunk computes, None if it can be in none.
    """

    def __init__(self, cost: Callable[[Chunk], int | None]) -> None:
        self._cost = cost
        self._prefixes: set[tuple[int, ...]] = set()

    def cost(self, chunk: Chunk) -> int | None:
        """Return the tokens that the chunk would add to the pass, None if it can be in none."""
        group = chunk.group
        if group.prefix in self._prefixes:
            return group.num_tokens - len(group.prefix)
        return self._cost(chunk)

    def add(self, chunk: Chunk) -> None:
        """Note that the chunk is in the pass."""
        self._prefixes.add(chunk.group.prefix)


@dataclass(slots=True)
class _Pass:
    tally: Tally
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    in_turn: int = 0
    out_of_turn: int = 0

    @property
    def num_tokens(self) -> int:
        return self.in_turn + self.out_of_turn


class FairQueue:
    """The chunks that wait, and the decision which of them run next.

    Args:
        max_tokens: Budget of a forward pass.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._quarter = max_tokens // 4
        # Tokens that small requests may have out of turn. It is less than a quarter after a pass
        # that gave little in turn, and more while the smallest chunk needs more.
        self._credit = self._quarter
        self._is_owed = False
        self._num_entries = 0
        self._waiting: dict[Submission, None] = {}
        # Entries of what has left or shrunk since stay until they surface or `_tidy` comes.
        self._by_deadline: list[tuple[float, int, Submission]] = []
        self._by_size: list[tuple[int, int, Submission]] = []
        self._due: dict[float, int] = {}
        self.num_tokens = 0
        """Tokens that wait, those of cancelled items included until they are dropped."""

    def add(self, submission: Submission) -> None:
        """Queue a submission; it must have chunks, and be queued once only."""
        self._waiting[submission] = None
        self._num_entries += 1
        heapq.heappush(self._by_deadline, (submission.deadline, self._num_entries, submission))
        self._count(submission, submission.num_tokens)

    def take(self, tally: Tally) -> list[Chunk]:
        """Remove and return the chunks of the next pass; chunks of cancelled items are dropped."""
        head = self._priced(self._head, tally)
        if head is None:
            self._credit, self._is_owed = self._quarter, False
            return []
        taken = _Pass(tally)
        room = self._max_tokens - head[1]
        # A chunk that leaves no such room goes first once, and then waits once.
        self._is_owed = not self._is_owed and room < self._credit
        saving = self._credit if self._is_owed else self._take_smallest(taken)
        self._take_in_turn(taken)
        earned = self._credit - taken.out_of_turn + taken.in_turn // 3
        self._credit = min(earned, max(saving, self._quarter))
        self._tidy()
        return taken.chunks

    def drop_cancelled(self, submission: Submission) -> None:
        """Remove what a submission still has of cancelled items; it may have left the queue."""
        if submission in self._waiting:
            living = [chunk for chunk in submission.chunks if not chunk.item.is_cancelled]
            submission.chunks = deque(living)
            left = sum(chunk.num_tokens for chunk in living)
            dropped, submission.num_tokens = submission.num_tokens - left, left
            self._count(submission, -dropped)

    def clear(self) -> list[Chunk]:
        """Remove and return everything."""
        chunks = [chunk for submission in self._waiting for chunk in submission.chunks]
        self._waiting.clear()
        self._by_deadline.clear()
        self._by_size.clear()
        self._due.clear()
        self.num_tokens = 0
        return chunks

    def due(self) -> list[tuple[float, int]]:
        """Return deadlines, rounded down a little, with the tokens due then; earliest first."""
        return sorted(self._due.items())

    def _take_smallest(self, taken: _Pass) -> int:
        """Fill the share of small requests; return the tokens to save up for the first of them."""
        while (found := self._priced(self._smallest, taken.tally)) is not None:
            smallest, cost = found
            is_in_turn = smallest is self._head()
            if not is_in_turn and taken.out_of_turn + cost > self._credit:
                return 0 if taken.out_of_turn or cost > self._max_tokens else cost
            if not self._fits(cost, taken):
                break
            if is_in_turn:
                taken.in_turn += cost
            else:
                taken.out_of_turn += cost
            self._move(smallest, taken)
        return 0

    def _take_in_turn(self, taken: _Pass) -> None:
        while (found := self._priced(self._head, taken.tally)) is not None:
            head, cost = found
            if not self._fits(cost, taken):
                break
            taken.in_turn += cost
            self._move(head, taken)

    def _priced(
        self, find: Callable[[], Submission | None], tally: Tally
    ) -> tuple[Submission, int] | None:
        """Return the submission found and the cost of its first chunk; drop those without one."""
        while (submission := find()) is not None:
            cost = tally.cost(submission.chunks[0])
            if cost is not None:
                return submission, cost
            self._pop(submission)
        return None

    def _fits(self, cost: int, taken: _Pass) -> bool:
        return not taken.chunks or taken.num_tokens + cost <= self._max_tokens

    def _move(self, submission: Submission, taken: _Pass) -> None:
        chunk = self._pop(submission)
        taken.tally.add(chunk)
        taken.chunks.append(chunk)

    def _head(self) -> Submission | None:
        """Return the submission whose turn it is; its first chunk is alive."""
        while self._by_deadline:
            submission = self._by_deadline[0][-1]
            if self._is_alive(submission):
                return submission
            heapq.heappop(self._by_deadline)
        return None

    def _smallest(self) -> Submission | None:
        """Return the submission with the fewest tokens left; its first chunk is alive."""
        while self._by_size:
            num_tokens, _, submission = self._by_size[0]
            # What has shrunk meanwhile has another entry.
            if self._is_alive(submission) and num_tokens == submission.num_tokens:
                return submission
            heapq.heappop(self._by_size)
        return None

    def _is_alive(self, submission: Submission) -> bool:
        while submission.chunks and submission.chunks[0].item.is_cancelled:
            self._pop(submission)
        return submission in self._waiting

    def _pop(self, submission: Submission) -> Chunk:
        chunk = submission.chunks.popleft()
        submission.num_tokens -= chunk.num_tokens
        self._count(submission, -chunk.num_tokens)
        return chunk

    def _count(self, submission: Submission, change: int) -> None:
        """Note that a submission has come, or that chunks have left it."""
        self.num_tokens += change
        step = _due_step(submission.deadline)
        self._due[step] = self._due.get(step, 0) + change
        if not self._due[step]:
            del self._due[step]
        if not submission.chunks:
            del self._waiting[submission]
        elif change:
            self._num_entries += 1
            heapq.heappush(self._by_size, (submission.num_tokens, self._num_entries, submission))

    def _tidy(self) -> None:
        """Drop entries of what has left or shrunk, when they are the most."""
        most = 2 * len(self._waiting) + 64
        if len(self._by_deadline) > most:
            self._by_deadline = [entry for entry in self._by_deadline if entry[-1] in self._waiting]
            heapq.heapify(self._by_deadline)
        if len(self._by_size) > most:
            self._by_size = [
                entry
                for entry in self._by_size
                if entry[-1] in self._waiting and entry[0] == entry[-1].num_tokens
            ]
            heapq.heapify(self._by_size)


def _due_step(deadline: float) -> float:
    if math.isinf(deadline):
        return deadline
    return math.floor(deadline / _DUE_STEP_S) * _DUE_STEP_S


def split_group(group: Group, *, max_tokens: int) -> list[tuple[Group, int]]:
    """Return a group as parts that fit forward passes, suffixes in order, with expected tokens.

    Every pass computes the prefix again, so a long one must not leave room for few suffixes only:
    a pass has `max_tokens` tokens at most, or, behind a prefix of more than half of these, the
    prefix and half of `max_tokens` of suffixes. A suffix longer than that room becomes a part of
    its own: it runs alone, it is never cut.

    Behind a shorter prefix, what fits a pass is split further, into parts of an eighth of
    `max_tokens` of suffixes, so that passes are filled and shared. The first part of what fits a
    pass is expected to cost the prefix too, the others are not.
    """
    prefix_tokens = len(group.prefix)
    room = max(max_tokens - prefix_tokens, max_tokens // 2)
    parts: list[tuple[Group, int]] = []
    for fitting in _split(group, room):
        is_long = prefix_tokens > max_tokens // 2
        pieces = [fitting] if is_long else _split(fitting, max_tokens // 8)
        parts.append((pieces[0], pieces[0].num_tokens))
        parts.extend((piece, piece.num_tokens - prefix_tokens) for piece in pieces[1:])
    return parts


def _split(group: Group, room: int) -> list[Group]:
    parts: list[Group] = []
    suffixes: list[tuple[int, ...]] = []
    num_tokens = 0
    for suffix in group.suffixes:
        if suffixes and num_tokens + len(suffix) > room:
            parts.append(Group(group.prefix, suffixes, group.gating_position))
            suffixes, num_tokens = [], 0
        suffixes.append(suffix)
        num_tokens += len(suffix)
    parts.append(Group(group.prefix, suffixes, group.gating_position))
    return parts
