"""The steps of an iteration that lead to new weights: sample and score, select, fine-tune.

Each may be called again after a kill at any moment, and does what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steerward.jobs.rows import read_conversations
from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.draw import Pick, draw
from steerward.jobs.rsf.origin import read_origin
from steerward.jobs.rsf.ports import Sampling, TrainingReport, TrainingWork
from steerward.jobs.rsf.running import LoopRun, Prompts, longer
from steerward.jobs.rsf.samples import SampleRow, read_samples, write_samples
from steerward.jobs.rsf.sampling import SAMPLING, SCORING, Drawing
from steerward.jobs.rsf.selecting import (
    check_one_origin,
    mean_rewards,
    select_samples,
    write_training_set,
)
from steerward.jobs.rsf.workspace import IterationFolder, remove_folder
from steerward.jobs.threads import in_thread
from steerward.protocol.errors import InvalidRequest, TrainingFailed

# A trainer that is killed goes on from its last checkpoint when it is started again.
_MOST_STARTS = 3


async def sample(run: LoopRun, iteration: int, prompts: Prompts) -> None:
    """Draw and score; the policy of the iteration before must be served."""
    settings, given = run.settings, run.given
    folder = run.workspace.iteration(iteration)
    directions = await in_thread(run.directions, iteration)
    picks = await in_thread(_picks, run, iteration, prompts, len(directions))
    drawing = Drawing(
        given.job_id,
        iteration,
        picks,
        prompts.rows,
        directions,
        settings.candidates_per_prompt,
        Sampling(settings.temperature, settings.top_p, settings.max_tokens, seed=0),
    )
    progress = folder.progress(iteration)
    run.tracker.begin("sampling", progress, total=len(picks))
    drawn = await run.sampler(Clock([SAMPLING, SCORING])).draw(drawing, folder.parts)
    if drawn.left_out:
        run.observer.event(
            f"iteration {iteration}: {drawn.left_out:,} of {len(picks):,} prompts were left out",
            level="warn",
        )
    # In place of what an earlier run told: the blocks tell of all runs.
    changes = {
        "sampled_tokens": drawn.tokens,
        "seconds": {**progress.seconds, **drawn.seconds},
    }
    await run.save(folder, progress.model_copy(update=changes))


def _picks(run: LoopRun, iteration: int, prompts: Prompts, num_directions: int) -> list[Pick]:
    """Return what an iteration samples, by places in the whole file."""
    drawn = draw(
        len(prompts.training),
        run.settings,
        num_directions,
        iteration=iteration,
        seed=run.given.seed,
    )
    return [
        Pick(pick.number, prompts.training[pick.prompt], pick.directions, pick.seed)
        for pick in drawn
    ]


async def select(run: LoopRun, iteration: int) -> None:
    """Write all samples with what became of them, and what to fine-tune on."""
    folder = run.workspace.iteration(iteration)
    progress = folder.progress(iteration)
    run.tracker.begin("selecting", progress)
    clock = Clock(["selection"])
    with clock.on("selection"):
        found = await in_thread(_select, run, iteration, folder)
    progress = longer(progress.model_copy(update=found), **clock.seconds)
    await run.save(folder, progress)
    run.observer.event(
        f"iteration {iteration}: {progress.accepted:,} of {progress.sampled:,} selected"
    )


def _select(run: LoopRun, iteration: int, folder: IterationFolder) -> Mapping[str, object]:
    """Return what is known of the samples then."""
    rule = run.ports.generator.rule
    directions = run.directions(iteration)
    if not folder.samples.exists():
        drawn = read_samples(folder.parts)
        check_one_origin(drawn)
        _check_policy(run, iteration, drawn)
        vectors = [rule.reward_direction(one).components for one in directions]
        reference = run.ports.reward_model.reference
        write_samples(folder.samples, select_samples(drawn, vectors, reference, run.settings))
    rows = read_samples(folder.samples)
    if not folder.selected.exists():
        sft = run.given.sft
        write_training_set(
            folder.selected,
            rows,
            rule=rule,
            directions=directions,
            sft=read_conversations(sft) if sft is not None else [],
            sft_share=run.settings.sft_share,
            seed=f"{run.given.seed}/{iteration}",
        )
    remove_folder(folder.parts)
    return _summary(rows, run.objectives)


def _check_policy(run: LoopRun, iteration: int, rows: Sequence[SampleRow]) -> None:
    """Refuse samples of other weights than those that the iteration before led to.

    Raises:
        InvalidRequest: If they are; both versions are told.
    """
    if iteration == 1:
        origin = read_origin(run.workspace.path)
        expected = origin.policy_weight_version if origin is not None else None
    else:
        expected = run.workspace.iteration(iteration - 1).progress(iteration - 1).weight_version
    found = {row.policy_weight_version for row in rows}
    if expected is not None and not found <= {expected}:
        raise InvalidRequest(
            f"the samples of iteration {iteration} were drawn by weights "
            f"{', '.join(sorted(found))}, and it begins with {expected}: somebody else exchanged "
            "the policy's weights meanwhile; create a new job",
            param="model",
        )


def _summary(rows: Sequence[SampleRow], objectives: Sequence[str]) -> Mapping[str, object]:
    selected = [row for row in rows if row.selected]
    return {
        "sampled": len(rows),
        "accepted": len(selected),
        "rewards": mean_rewards(rows, objectives),
        "selected_rewards": mean_rewards(selected, objectives),
    }


async def train(run: LoopRun, iteration: int) -> None:
    """Fine-tune the policy of the iteration before."""
    folder = run.workspace.iteration(iteration)
    before = run.workspace.iteration(iteration - 1).policy if iteration > 1 else None
    progress = folder.progress(iteration)
    run.tracker.begin("training", progress)
    clock = Clock(["training"])
    with clock.on("training"):
        report = await _trained(
            run,
            TrainingWork(
                data=folder.selected,
                base=run.given.base,
                start=before,
                out=folder.policy,
                work=folder.training,
                seed=run.given.seed + iteration,
            ),
        )
    found = {"loss": report.loss, "kl": report.kl, "trained_tokens": report.tokens}
    # The report counts what killed runs trained, too; the clock what is not training itself.
    spent_s = max(clock.seconds["training"], report.seconds)
    await in_thread(remove_folder, folder.training)
    await run.save(folder, longer(progress.model_copy(update=found), training=spent_s))
    run.observer.event(
        f"iteration {iteration}: trained {report.steps:,} steps, loss {report.loss:.3f}, "
        f"KL {report.kl:.3f}"
    )
    if report.left_out:
        run.observer.event(
            f"iteration {iteration}: {report.left_out:,} conversations do not fit the policy and "
            "were not learned",
            level="warn",
        )


async def _trained(run: LoopRun, work: TrainingWork) -> TrainingReport:
    """Fine-tune, and once more where something outside has killed the trainer."""
    for start in range(1, _MOST_STARTS + 1):
        try:
            return await run.ports.trainer.train(work, run.tracker.trained)
        except TrainingFailed as error:
            if not error.was_killed or start == _MOST_STARTS:
                raise
            run.observer.event(f"{error.message}; it is started again", level="warn")
    raise AssertionError("the last start returns or raises")
