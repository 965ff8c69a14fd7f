"""Which tokens the next step computes: pure bookkeeping over blocks and places.

Prompts wait in order of arrival. A prompt gets blocks when it is its turn, is read in runs of at
most the step's tokens, and gives its samples their first token as places come free; its full
blocks are shared by all of them. Blocks are taken as completions grow: where none is left, what
came last makes room, be it a prompt that was read or a sample, and is computed again later, from
what it had drawn. So nothing is lost, and the oldest always gets on: the cache holds at least one
sequence of the greatest length and a block more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from steerward.policy.local.blocks import BlockPool
from steerward.policy.local.sequence import Job, Sample, SharedPrompt


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens of a prompt that a step reads."""

    prompt: SharedPrompt
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A sample that got its place."""

    sample: Sample
    logits_V: Tensor
    """Of the prompt's last token: it draws its first token from these."""
    copied: tuple[int, int] | None
    """Block of the prompt to be copied first, and where to: the sample will write behind it."""


@dataclass(slots=True)
class Step:
    """What one step computes; all of it with the same weights."""

    runs: list[Run] = field(default_factory=list[Run])
    samples: list[Sample] = field(default_factory=list[Sample])
    """Each gives one token."""


class Scheduler:
    """The samples that run, and the prompts that wait.

    Args:
        pool: Blocks of the cache.
        max_running: Places for samples.
        max_step_tokens: Most tokens of prompts that one step reads.
    """

    def __init__(self, pool: BlockPool, *, max_running: int, max_step_tokens: int) -> None:
        self._pool = pool
        self._max_running = max_running
        self._max_step_tokens = max_step_tokens
        self._prompts: deque[SharedPrompt] = deque()
        self._running: list[Sample] = []
        self._taken: list[int] = []

    @property
    def running(self) -> list[Sample]:
        """Samples that have a place, those that began first in front."""
        return list(self._running)

    @property
    def num_running(self) -> int:
        """Samples that have a place."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Samples that have none yet."""
        return sum(len(prompt.waiting) for prompt in self._prompts)

    @property
    def jobs(self) -> set[Job]:
        """Requests that are not done."""
        return {s.job for s in self._running} | {p.job for p in self._prompts}

    def add(self, prompts: Iterable[SharedPrompt]) -> None:
        """Let prompts wait for their turn."""
        self._prompts.extend(prompts)

    def begin_samples(self) -> list[Begun]:
        """Give places to samples whose prompt is read; each draws its first token."""
        begun: list[Begun] = []
        for prompt in list(self._prompts):
            while prompt.logits_V is not None and prompt.waiting:
                sample = self._begin(prompt, prompt.logits_V)
                if sample is None:
                    return begun
                begun.append(sample)
            if not prompt.waiting:
                self._prompts.remove(prompt)
                self._pool.release(prompt.table)
        return begun

    def next_steps(self) -> list[Step]:
        """Return what to compute now, one step for each set of weights; empty if nothing waits."""
        steps: dict[int, Step] = {}
        for sample in self._grown_samples():
            steps.setdefault(id(sample.job.weights), Step()).samples.append(sample)
        for run in self._runs():
            steps.setdefault(id(run.prompt.job.weights), Step()).runs.append(run)
        return list(steps.values())

    def pop_taken(self) -> list[int]:
        """Return the blocks that were taken since the last call; nothing was written to them."""
        taken, self._taken = self._taken, []
        return taken

    def end(self, sample: Sample) -> None:
        """Free the place and the blocks of a sample that is done."""
        self._running.remove(sample)
        self._pool.release(sample.table)
        sample.table = []

    def drop(self, jobs: set[Job]) -> None:
        """Free everything of some requests."""
        for sample in [s for s in self._running if s.job in jobs]:
            self.end(sample)
        for prompt in [p for p in self._prompts if p.job in jobs]:
            self._prompts.remove(prompt)
            self._pool.release(prompt.table)

    def _begin(self, prompt: SharedPrompt, logits_V: Tensor) -> Begun | None:
        """Give one sample a place and its blocks; None where there is no room."""
        if len(self._running) == self._max_running:
            return None
        # The last to begin writes on in the prompt's own last block, the others in copies.
        needs_copy = len(prompt.waiting) > 1 and len(prompt.ids) % self._pool.block_tokens > 0
        while needs_copy and not self._pool.num_free:
            if self._running or not self._forget_prompt(behind=prompt):
                return None
        sample = prompt.waiting.pop(0)
        whole = prompt.table[:-1] if needs_copy else prompt.table
        self._pool.share(whole)
        sample.table = [*whole, *self._pool.take(1)] if needs_copy else list(whole)
        self._running.append(sample)
        copied = (prompt.table[-1], sample.table[-1]) if needs_copy else None
        return Begun(sample, logits_V, copied)

    def _runs(self) -> list[Run]:
        """Return runs of prompts in order of arrival, as far as tokens, blocks and places go."""
        left = self._max_step_tokens
        places = self._max_running - len(self._running)
        runs: list[Run] = []
        for prompt in self._prompts:
            if prompt.logits_V is not None:
                places -= len(prompt.waiting)
                continue
            # A prompt that nobody could begin from yet would only hold blocks.
            if left == 0 or places <= 0:
                break
            if not prompt.table and not self._give_blocks(prompt):
                break
            count = min(left, len(prompt.ids) - prompt.computed)
            runs.append(Run(prompt, prompt.computed, prompt.computed + count))
            left -= count
            places -= len(prompt.waiting)
        return runs

    def _give_blocks(self, prompt: SharedPrompt) -> bool:
        # One more for each sample that runs, so that what begins does not push others out.
        needed = self._pool.blocks_for(len(prompt.ids))
        while self._pool.num_free < needed + len(self._running) + 1:
            if self._running or not self._forget_prompt(behind=prompt):
                return False
        prompt.table = self._take(needed)
        return True

    def _grown_samples(self) -> list[Sample]:
        """Give each sample the block of its next token; where none is left the last make room."""
        grown: list[Sample] = []
        for sample in list(self._running):
            while self._lacks_block(sample) and not self._pool.num_free:
                if not self._forget_prompt():
                    self._make_room(self._running[-1])
            if sample not in self._running:
                break  # It was the last one, and so are all that follow.
            if self._lacks_block(sample):
                sample.table += self._take(1)
            grown.append(sample)
        return grown

    def _take(self, count: int) -> list[int]:
        blocks = self._pool.take(count)
        self._taken += blocks
        return blocks

    def _lacks_block(self, sample: Sample) -> bool:
        held = len(sample.table)
        return sample in self._running and held < self._pool.blocks_for(sample.length)

    def _forget_prompt(self, *, behind: SharedPrompt | None = None) -> bool:
        """Free the blocks of the last prompt that has some; it will be read again."""
        for prompt in reversed(self._prompts):
            if prompt is behind:
                return False
            if prompt.table:
                self._pool.release(prompt.table)
                prompt.table, prompt.computed, prompt.logits_V = [], 0, None
                return True
        return False

    def _make_room(self, sample: Sample) -> None:
        self.end(sample)
        ids = [*sample.prompt_ids, *sample.tokens]
        self._prompts.appendleft(SharedPrompt(sample.job, ids, [sample]))
