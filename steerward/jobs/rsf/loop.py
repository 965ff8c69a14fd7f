"""The loop of rejection-sampling fine-tuning (DPA, arXiv:2402.18571; RAFT, arXiv:2304.06767).

Step by step, each with a file that says that it is done, so that a loop that was killed goes on
where it was: run it again on the same folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.rsf import steps
from steerward.jobs.rsf.measuring import measure
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.report import write_report
from steerward.jobs.rsf.running import LoopInput, LoopPorts, LoopRun, Prompts
from steerward.jobs.rsf.stopping import chosen_iteration, why_stop
from steerward.jobs.rsf.swapping import Swapping
from steerward.jobs.rsf.tracker import Tracker
from steerward.jobs.rsf.workspace import Workspace
from steerward.jobs.threads import in_thread
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.fine_tuning import IterationProgress

PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a loop came to."""

    iteration: int
    """Whose policy is kept."""
    folder: Path
    weight_version: str
    sampled_tokens: int
    trained_tokens: int


class RsfLoop:
    """Samples, scores, selects, fine-tunes, swaps, measures; and again.

    Args:
        given: What to run on.
        ports: Whom to ask.
        observer: Is told how it goes.
        patience_s: Seconds that it waits for a policy or reward model that is away.
    """

    def __init__(
        self,
        given: LoopInput,
        ports: LoopPorts,
        observer: Observer,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._settings = given.settings
        self._run = LoopRun(
            given,
            ports,
            observer,
            Patience(patience_s),
            Workspace(given.folder),
            Tracker(given.settings.iterations, observer),
        )
        self._swapping = Swapping(self._run)

    async def run(self) -> Outcome:
        """Run to the end, from wherever an earlier run was stopped.

        Nobody else may work in the folder meanwhile.

        Raises:
            SteerwardError: Why it cannot go on; what is done stays done.
            OSError: If the folder cannot be written.
        """
        began_at = time.monotonic()
        await in_thread(self._run.workspace.tidy)
        prompts = await in_thread(Prompts.read, self._run.given)
        if prompts.overlap:
            self._run.observer.event(
                f"{prompts.overlap:,} of {len(prompts.held_out):,} validation prompts are in the "
                "training file too; what is measured on them is no proof",
                level="warn",
            )
        await self._measure_start(prompts)
        last = 0
        for iteration in range(1, self._settings.iterations + 1):
            if not self._run.workspace.iteration(iteration).has_begun:
                reason = why_stop(
                    iteration,
                    self._settings,
                    self._run.tracker.history,
                    elapsed_s=time.monotonic() - began_at,
                )
                if reason is not None:
                    self._run.observer.event(f"no iteration {iteration}: {reason}")
                    break
            await self._iterate(iteration, prompts)
            last = iteration
        return await self._finish(last)

    async def _measure_start(self, prompts: Prompts) -> None:
        """Measure the policy that the job begins with."""
        progress = self._progress(0)
        if prompts.held_out:
            if progress.direction_score is None:
                await measure(self._run, 0, prompts)
        elif self._settings.evaluation_prompts:
            self._run.observer.event(
                f"nothing is measured: the training file has {len(prompts.rows):,} prompts, of "
                "which at most a tenth is held out; give a validation file, or more prompts",
                level="warn",
            )

    async def _iterate(self, iteration: int, prompts: Prompts) -> None:
        """Do what is missing of an iteration."""
        run, folder = self._run, self._run.workspace.iteration(iteration)
        if not folder.samples.exists():
            await self._swapping.serve(iteration - 1)
            await steps.sample(run, iteration, prompts)
        if not self._progress(iteration).accepted:
            await steps.select(run, iteration)
        if self._progress(iteration).loss is None:
            await steps.train(run, iteration)
        progress = self._progress(iteration)
        is_measured = progress.direction_score is not None or not prompts.held_out
        if progress.weight_version is None or not is_measured:
            await self._swapping.serve(iteration)
        if not is_measured:
            await measure(run, iteration, prompts)

    def _progress(self, iteration: int) -> IterationProgress:
        """Return what is known of an iteration, and let it count."""
        progress = self._run.workspace.iteration(iteration).progress(iteration)
        self._run.tracker.keep(progress)
        return progress

    async def _finish(self, last: int) -> Outcome:
        """Keep one iteration's policy, and write the report."""
        if last == 0:
            raise InvalidRequest("no iteration was run: the limits of the job leave room for none")
        run = self._run
        chosen, warning = chosen_iteration(last, self._settings, run.tracker.history)
        if warning is not None:
            run.observer.event(warning, level="warn")
        await self._swapping.serve(chosen)
        progress = self._progress(chosen)
        run.tracker.begin("reporting", progress)
        await in_thread(write_report, run.workspace, run.ports.generator.rule, last)
        run.tracker.begin("done", progress)
        assert progress.weight_version is not None
        return Outcome(
            iteration=chosen,
            folder=run.workspace.iteration(chosen).policy,
            weight_version=progress.weight_version,
            sampled_tokens=run.tracker.sampled_tokens,
            trained_tokens=run.tracker.trained_tokens,
        )
