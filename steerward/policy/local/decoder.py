"""One step after the other: the part of the device thread that computes. No threads, no clocks."""

from __future__ import annotations

import torch
from torch import Tensor

from steerward.policy.generation import FinishReason, Piece, TokenChoice, TokenLogprob
from steerward.policy.local.blocks import BlockPool
from steerward.policy.local.cache import BLOCK_TOKENS, PagedCache
from steerward.policy.local.model import compute_step
from steerward.policy.local.sampling import Drawn, draw_tokens
from steerward.policy.local.scheduler import Scheduler, Step
from steerward.policy.local.sequence import Job, Sample, SharedPrompt
from steerward.policy.local.text import TokenTexts
from steerward.protocol.errors import EngineFailure, SteerwardError


class Decoder:
    """Draws the completions of all requests, a token each at a time.

    Args:
        cache: Of keys and values.
        texts: Of single tokens.
        max_running: Most completions drawn at once.
        max_step_tokens: Most prompt tokens read in one step.
    """

    def __init__(
        self, cache: PagedCache, texts: TokenTexts, *, max_running: int, max_step_tokens: int
    ) -> None:
        self._cache = cache
        self._texts = texts
        pool = BlockPool(cache.num_blocks, block_tokens=BLOCK_TOKENS)
        self._scheduler = Scheduler(pool, max_running=max_running, max_step_tokens=max_step_tokens)

    @property
    def num_running(self) -> int:
        """Completions that are being drawn."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Completions that wait for a place."""
        return self._scheduler.num_waiting

    @property
    def jobs(self) -> set[Job]:
        """Requests that are not done."""
        return self._scheduler.jobs

    def add(self, prompts: list[SharedPrompt]) -> None:
        """Take on a request."""
        self._scheduler.add(prompts)

    def drop(self, jobs: set[Job]) -> None:
        """Free everything that some requests hold."""
        self._scheduler.drop(jobs)

    def advance(self) -> list[tuple[Job, Piece | SteerwardError]]:
        """Draw one more token of each completion that has its place; none if nothing is left."""
        pieces: list[tuple[Job, Piece | SteerwardError]] = []
        steps = self._scheduler.next_steps()
        self._cache.clear(self._scheduler.pop_taken())
        for step in steps:
            weights = (step.samples[0].job if step.samples else step.runs[0].prompt.job).weights
            weights.activate()
            logits_RV = compute_step(weights, self._cache, step)
            first = self._end_runs(step, logits_RV)
            if step.samples:
                pieces += self._draw(step.samples, logits_RV[first : first + len(step.samples)])
        # Every prompt that is read may now begin, those of earlier steps that found no place too.
        begun = self._scheduler.begin_samples()
        for one in begun:
            if one.copied is not None:
                self._cache.copy_block(*one.copied)
        if begun:
            logits_BV = torch.stack([one.logits_V for one in begun])
            pieces += self._draw([one.sample for one in begun], logits_BV)
        return pieces

    def _end_runs(self, step: Step, logits_RV: Tensor) -> int:
        """Keep the logits of prompts that are read; return how many rows these were."""
        row = 0
        for run in step.runs:
            run.prompt.computed = run.end
            if run.end == len(run.prompt.ids):
                run.prompt.logits_V = logits_RV[row].clone()
                row += 1
        return row

    def _draw(
        self, samples: list[Sample], logits_BV: Tensor
    ) -> list[tuple[Job, Piece | SteerwardError]]:
        # NaN and infinity stay in a sum.
        is_finite_B = logits_BV.sum(dim=-1).isfinite().tolist()
        broken = {s.job for s, fine in zip(samples, is_finite_B, strict=True) if not fine}
        if broken:
            self._scheduler.drop(broken)
            whole = [i for i, sample in enumerate(samples) if sample.job not in broken]
            samples, logits_BV = [samples[i] for i in whole], logits_BV[whole]
        failed: list[tuple[Job, Piece | SteerwardError]] = [(job, _not_finite()) for job in broken]
        if not samples:
            return failed
        drawn = draw_tokens(logits_BV, [sample.draw for sample in samples])
        return failed + [
            (sample.job, self._accept(sample, drawn, row)) for row, sample in enumerate(samples)
        ]

    def _accept(self, sample: Sample, drawn: Drawn, row: int) -> Piece:
        token = drawn.tokens[row]
        sample.tokens.append(token)
        reason: FinishReason | None = None
        text = ""
        is_reported = sample.draw.top_logprobs is not None
        logprobs = (self._logprob(sample, drawn, row),) if is_reported else ()
        if token in sample.end_tokens:
            reason, logprobs = "stop", ()
            text = sample.text.finish()
        else:
            text = sample.text.push(token)
            if sample.text.has_stopped:
                reason = "stop"
            elif len(sample.tokens) == sample.max_tokens:
                reason = "length"
                text += sample.text.finish()
        if reason is not None:
            self._scheduler.end(sample)
        return Piece(sample.index, text, 1, logprobs, reason)

    def _logprob(self, sample: Sample, drawn: Drawn, row: int) -> TokenLogprob:
        count = sample.draw.top_logprobs or 0
        chosen = self._choice(drawn.tokens[row], drawn.logprobs[row])
        top = zip(drawn.top_tokens[row][:count], drawn.top_logprobs[row][:count], strict=True)
        return TokenLogprob(chosen, tuple(self._choice(token, value) for token, value in top))

    def _choice(self, token: int, logprob: float) -> TokenChoice:
        text, raw = self._texts.of(token)
        return TokenChoice(text, logprob, raw)


def _not_finite() -> EngineFailure:
    return EngineFailure(
        "the policy gave logits that are NaN or infinite for a token of this request; no token "
        "can be drawn from them: try float32 (--policy-dtype), or check the weights"
    )
