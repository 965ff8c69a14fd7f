"""The step that measures a policy: answers to prompts that it is not trained on."""

from __future__ import annotations

from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.directions import evaluation_directions
from steerward.jobs.rsf.draw import Pick
from steerward.jobs.rsf.evaluation import Evaluation, evaluate
from steerward.jobs.rsf.ports import Sampling
from steerward.jobs.rsf.running import LoopRun, Prompts
from steerward.jobs.rsf.samples import read_samples, write_samples
from steerward.jobs.rsf.sampling import SAMPLING, SCORING, Drawing
from steerward.jobs.rsf.workspace import IterationFolder, remove_folder
from steerward.jobs.threads import in_thread

EVALUATION = "evaluation"


async def measure(run: LoopRun, iteration: int, prompts: Prompts) -> None:
    """Measure the policy of an iteration, which must be served."""
    folder = run.workspace.iteration(iteration)
    if not folder.evaluation.exists():
        await _answer(run, iteration, folder, prompts)
    # Resampling takes a second, and the event loop has live requests.
    found = await in_thread(_evaluate, run, folder)
    if found is None:
        run.observer.event(
            f"{_place(iteration)}: nothing is known of the direction score, for no prompt was "
            "answered under all directions",
            level="warn",
        )
        return
    progress = folder.progress(iteration)
    progress = progress.model_copy(update={"direction_score": found.direction_score.mean})
    await run.save(folder, progress)
    mean = found.direction_score
    message = f"direction score {mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f})"
    run.observer.event(f"{_place(iteration)}: {message}", type="metrics", data=found.data())
    if progress.weight_version is not None:
        # Once more: the score is one of its measures.
        run.observer.published(progress, folder.policy, progress.weight_version)


async def _answer(run: LoopRun, iteration: int, folder: IterationFolder, prompts: Prompts) -> None:
    settings, given = run.settings, run.given
    rule = run.ports.generator.rule
    directions = await in_thread(evaluation_directions, settings, rule, given.seed)
    num = len(prompts.held_out)
    progress = folder.progress(iteration)
    run.tracker.begin("evaluating", progress, total=num)
    drawing = Drawing(
        given.job_id,
        iteration,
        [Pick(i, i, tuple(range(len(directions))), given.seed + i) for i in range(num)],
        prompts.held_out,
        directions,
        1,
        Sampling(settings.evaluation_temperature, 1.0, settings.max_tokens, seed=0),
    )
    clock = Clock([EVALUATION, SAMPLING, SCORING])
    with clock.on(EVALUATION):
        drawn = await run.sampler(clock).draw(drawing, folder.evaluation_parts)
    seconds = {**progress.seconds, **drawn.seconds}
    await run.save(folder, progress.model_copy(update={"seconds": seconds}))
    rows = await in_thread(read_samples, folder.evaluation_parts)
    await in_thread(write_samples, folder.evaluation, rows)


def _evaluate(run: LoopRun, folder: IterationFolder) -> Evaluation | None:
    remove_folder(folder.evaluation_parts)
    directions = evaluation_directions(run.settings, run.ports.generator.rule, run.given.seed)
    return evaluate(read_samples(folder.evaluation), len(directions))


def _place(iteration: int) -> str:
    return f"iteration {iteration}" if iteration else "before the first iteration"
