"""The loop of rejection-sampling fine-tuning (DPA, arXiv:2402.18571; RAFT, arXiv:2304.06767).

Step by step, each with a file that says that it is done, so that a loop that was killed goes on
where it was: run it again on the same folder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.rows import read_conversations, read_prompts
from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.directions import directions_for, evaluation_directions
from steerward.jobs.rsf.draw import Pick, draw, hold_out
from steerward.jobs.rsf.evaluation import Evaluation, evaluate
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import (
    Generator,
    Publisher,
    RewardModel,
    Sampling,
    Trainer,
    TrainingWork,
    Turns,
)
from steerward.jobs.rsf.report import write_report
from steerward.jobs.rsf.sampling import Drawing, Sampler, mean_rewards
from steerward.jobs.rsf.samples import read_samples, write_samples
from steerward.jobs.rsf.selecting import select_samples, write_training_set
from steerward.jobs.rsf.tracker import Tracker
from steerward.jobs.rsf.workspace import IterationFolder, Workspace, remove_folder
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidRequest, SteerwardError
from steerward.protocol.fine_tuning import IterationProgress
from steerward.protocol.rsf import RsfSettings

PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class LoopInput:
    """What a loop runs on."""

    job_id: str
    settings: RsfSettings
    seed: int
    prompts: Path
    """JSON lines, see `steerward.jobs.rows`."""
    validation_prompts: Path | None
    sft: Path | None
    base: Path
    """Checkpoint folder of the policy that it begins with."""
    folder: Path
    """Of the job; what it holds of an earlier run is gone on with."""


@dataclass(frozen=True, slots=True)
class LoopPorts:
    """Whom a loop asks."""

    generator: Generator
    reward_model: RewardModel
    trainer: Trainer
    publisher: Publisher


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
        self._given = given
        self._settings = given.settings
        self._ports = ports
        self._observer = observer
        self._patience = Patience(patience_s)
        self._workspace = Workspace(given.folder)
        self._tracker = Tracker(given.settings.iterations, observer)

    async def run(self) -> Outcome:
        """Run to the end, from wherever an earlier run was stopped.

        Raises:
            SteerwardError: Why it cannot go on; what is done stays done.
            OSError: If the folder cannot be written.
        """
        began_at = time.monotonic()
        prompts, training, held_out = await asyncio.to_thread(self._read_prompts)
        await self._measure(0, held_out)
        last = 0
        for iteration in range(1, self._settings.iterations + 1):
            folder = self._workspace.iteration(iteration)
            if not folder.policy.exists() and self._why_stop(iteration, began_at):
                break
            if not folder.policy.exists():
                await self._sample(iteration, folder, prompts, training)
                await self._select(iteration, folder)
                await self._train(iteration, folder)
            await self._publish(iteration, folder)
            await self._measure(iteration, held_out)
            last = iteration
        return await self._finish(last)

    def _read_prompts(self) -> tuple[list[Turns], list[int], list[Turns]]:
        """Return all prompts, which of them to train on, and those to measure on."""
        given, wanted = self._given, self._settings.evaluation_prompts
        prompts: list[Turns] = list(read_prompts(given.prompts))
        if given.validation_prompts is not None:
            others = read_prompts(given.validation_prompts)
            places, _ = hold_out(len(others), 0, given.seed)
            return prompts, list(range(len(prompts))), [others[i] for i in places[:wanted]]
        training, held_out = hold_out(len(prompts), wanted, given.seed)
        return prompts, training, [prompts[i] for i in held_out]

    def _why_stop(self, iteration: int, began_at: float) -> str | None:
        """Return why there is no further iteration, and tell it."""
        settings, history = self._settings, self._tracker.history
        reason = None
        if iteration > 1 and settings.max_sampled_tokens is not None:
            sampled = self._tracker.sampled_tokens
            if sampled >= settings.max_sampled_tokens:
                reason = f"{sampled:,} tokens were sampled, limit {settings.max_sampled_tokens:,}"
        if iteration > 1 and settings.max_seconds is not None:
            spent_s = sum(sum(one.seconds.values()) for one in history)
            spent_s = max(spent_s, time.monotonic() - began_at)
            if spent_s >= settings.max_seconds:
                reason = f"the job ran for {spent_s:,.0f} s, limit {settings.max_seconds:,.0f}"
        patience = settings.early_stopping_patience
        scores = [one.direction_score for one in history if one.direction_score is not None]
        if patience is not None and len(scores) > patience:
            if max(scores[-patience:]) <= max(scores[:-patience]):
                reason = f"the direction score has not risen for {patience} iterations"
        if reason is not None:
            self._observer.event(f"no iteration {iteration}: {reason}")
        return reason

    async def _sample(
        self,
        iteration: int,
        folder: IterationFolder,
        prompts: Sequence[Turns],
        training: Sequence[int],
    ) -> None:
        """Fill the folder of parts."""
        if folder.samples.exists():
            return
        settings, given = self._settings, self._given
        if iteration > 1:
            # A server that was started anew serves the policy that the job began with.
            await self._publish(iteration - 1, self._workspace.iteration(iteration - 1))
        directions = self._directions(iteration)
        picks = [
            Pick(pick.number, training[pick.prompt], pick.directions, pick.seed)
            for pick in draw(
                len(training), settings, len(directions), iteration=iteration, seed=given.seed
            )
        ]
        drawing = Drawing(
            given.job_id,
            iteration,
            picks,
            prompts,
            directions,
            settings.candidates_per_prompt,
            Sampling(settings.temperature, settings.top_p, settings.max_tokens, seed=0),
        )
        progress = folder.progress(iteration)
        self._tracker.begin("sampling", progress, total=len(picks))
        clock = Clock(["sampling", "scoring"])
        await self._sampler(clock).draw(drawing, folder.parts)
        self._save(folder, _with_seconds(progress, clock))

    async def _select(self, iteration: int, folder: IterationFolder) -> None:
        """Write all samples with what became of them, and what to fine-tune on."""
        progress = folder.progress(iteration)
        self._tracker.begin("selecting", progress)
        clock = Clock(["selection"])
        with clock.on("selection"):
            found = await asyncio.to_thread(self._select_now, iteration, folder)
        progress = _with_seconds(progress.model_copy(update=found), clock)
        self._save(folder, progress)
        self._tracker.begin("selecting", progress)
        message = f"iteration {iteration}: {progress.accepted:,} of {progress.sampled:,} selected"
        self._observer.event(message)

    def _select_now(self, iteration: int, folder: IterationFolder) -> dict[str, object]:
        settings, rule = self._settings, self._ports.generator.rule
        directions = self._directions(iteration)
        if not folder.samples.exists():
            rows = select_samples(
                read_samples(folder.parts),
                [rule.reward_direction(one).components for one in directions],
                self._ports.reward_model.reference,
                settings,
            )
            write_samples(folder.samples, rows)
        rows = read_samples(folder.samples)
        sft = read_conversations(self._given.sft) if self._given.sft is not None else []
        if not folder.selected.exists():
            write_training_set(
                folder.selected,
                rows,
                rule=rule,
                directions=directions,
                sft=sft,
                sft_share=settings.sft_share,
                seed=f"{self._given.seed}/{iteration}",
            )
        remove_folder(folder.parts)
        names = [rule.reward_names.get(name, name) for name in rule.objectives]
        selected = [row for row in rows if row.selected]
        return {
            "sampled": len(rows),
            "accepted": len(selected),
            "sampled_tokens": sum(row.tokens or 0 for row in rows),
            "rewards": mean_rewards(rows, names),
            "selected_rewards": mean_rewards(selected, names),
        }

    async def _train(self, iteration: int, folder: IterationFolder) -> None:
        """Fine-tune the policy of the iteration before."""
        before = self._workspace.iteration(iteration - 1).policy if iteration > 1 else None
        progress = folder.progress(iteration)
        self._tracker.begin("training", progress)
        clock = Clock(["training"])
        with clock.on("training"):
            report = await self._ports.trainer.train(
                TrainingWork(
                    data=folder.selected,
                    base=self._given.base,
                    start=before,
                    out=folder.policy,
                    work=folder.training,
                    seed=self._given.seed + iteration,
                ),
                self._tracker.trained,
            )
        progress = progress.model_copy(
            update={"loss": report.loss, "kl": report.kl, "trained_tokens": report.tokens}
        )
        self._save(folder, _with_seconds(progress, clock))
        self._observer.event(
            f"iteration {iteration}: trained {report.steps:,} steps, loss {report.loss:.3f}, "
            f"KL {report.kl:.3f}"
        )
        await asyncio.to_thread(remove_folder, folder.training)

    async def _publish(self, iteration: int, folder: IterationFolder) -> None:
        """Serve the policy of an iteration."""
        progress = folder.progress(iteration)
        self._tracker.begin("swapping", progress)
        clock = Clock(["swap"])
        with clock.on("swap"):
            version = await self._ports.publisher.publish(
                folder.policy, self._settings.training.method
            )
        is_new = progress.weight_version is None
        progress = progress.model_copy(update={"weight_version": version})
        if is_new:
            progress = _with_seconds(progress, clock)
            self._save(folder, progress)
            self._observer.event(f"iteration {iteration}: weights {version} are served")
        self._tracker.begin("swapping", progress)
        self._observer.published(progress, folder.policy, version)

    async def _measure(self, iteration: int, prompts: Sequence[Turns]) -> None:
        """Answer the evaluation prompts with the policy as it is served."""
        folder = self._workspace.iteration(iteration)
        progress = folder.progress(iteration)
        if not prompts:
            return
        settings, given = self._settings, self._given
        directions = evaluation_directions(settings, self._ports.generator.rule, given.seed)
        clock = Clock(["evaluation", "sampling", "scoring"])
        if not folder.evaluation.exists():
            self._tracker.begin("evaluating", progress, total=len(prompts))
            picks = [
                Pick(i, i, tuple(range(len(directions))), given.seed + i)
                for i in range(len(prompts))
            ]
            drawing = Drawing(
                given.job_id,
                iteration,
                picks,
                prompts,
                directions,
                1,
                Sampling(settings.evaluation_temperature, 1.0, settings.max_tokens, seed=0),
            )
            with clock.on("evaluation"):
                await self._sampler(clock).draw(drawing, folder.evaluation_parts)
                rows = await asyncio.to_thread(read_samples, folder.evaluation_parts)
                await asyncio.to_thread(write_samples, folder.evaluation, rows)
        await asyncio.to_thread(remove_folder, folder.evaluation_parts)
        rows = await asyncio.to_thread(read_samples, folder.evaluation)
        found = evaluate(rows, len(directions))
        progress = progress.model_copy(update={"direction_score": found.direction_score.mean})
        self._save(folder, _with_seconds(progress, clock))
        self._observer.event(_told(iteration, found), type="metrics", data=found.data())

    async def _finish(self, last: int) -> Outcome:
        """Keep one iteration's policy, and write the report."""
        if last == 0:
            raise InvalidRequest("no iteration was run: the limits of the job leave room for none")
        chosen = self._chosen(last)
        folder = self._workspace.iteration(chosen)
        await self._publish(chosen, folder)
        progress = folder.progress(chosen)
        self._tracker.begin("reporting", progress)
        await asyncio.to_thread(write_report, self._workspace, self._ports.generator.rule, last)
        self._tracker.begin("done", progress)
        assert progress.weight_version is not None
        return Outcome(
            iteration=chosen,
            folder=folder.policy,
            weight_version=progress.weight_version,
            sampled_tokens=self._tracker.sampled_tokens,
            trained_tokens=self._tracker.trained_tokens,
        )

    def _chosen(self, last: int) -> int:
        history = [one for one in self._tracker.history if one.iteration >= 1]
        measured = [one for one in history if one.direction_score is not None]
        if self._settings.keep == "last" or not measured:
            return last
        best = max(measured, key=lambda one: one.direction_score or 0.0)
        start = self._tracker.history[0].direction_score
        if start is not None and best.direction_score is not None and best.direction_score <= start:
            self._observer.event(
                f"no iteration has a higher direction score than the start ({start:.3f}); the "
                f"best, {best.iteration}, is kept all the same ({best.direction_score:.3f})",
                level="warn",
            )
        return best.iteration

    def _directions(self, iteration: int) -> list[PreferenceDirection]:
        rule = self._ports.generator.rule
        return directions_for(self._settings, rule, iteration=iteration, seed=self._given.seed)

    def _sampler(self, clock: Clock) -> Sampler:
        def left_out(row: int, error: SteerwardError) -> None:
            self._observer.event(
                f"prompt {row} of the file is left out: {error.message}", level="warn"
            )

        return Sampler(
            self._ports.generator,
            self._ports.reward_model,
            patience=self._patience,
            clock=clock,
            concurrency=self._settings.concurrency,
            on_prompt=self._tracker.sampled,
            on_left_out=left_out,
        )

    def _save(self, folder: IterationFolder, progress: IterationProgress) -> None:
        folder.save(progress)
        self._tracker.keep(progress)


def _with_seconds(progress: IterationProgress, clock: Clock) -> IterationProgress:
    """Return progress with the seconds of a step, which a killed one has not told."""
    return progress.model_copy(update={"seconds": {**progress.seconds, **clock.seconds}})


def _told(iteration: int, found: Evaluation) -> str:
    mean = found.direction_score
    where = f"iteration {iteration}" if iteration else "before the first iteration"
    return f"{where}: direction score {mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f})"
