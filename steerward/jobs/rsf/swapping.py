"""Which policy of a job is served, and the step that lets a new one be."""

from __future__ import annotations

from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.running import LoopRun, longer
from steerward.protocol.errors import SteerwardError


class Swapping:
    """Serves the policy of one iteration of a job at a time.

    Args:
        run: It begins with the policy that the job began with.
    """

    def __init__(self, run: LoopRun) -> None:
        self._run = run
        self._served = 0

    async def serve(self, iteration: int) -> None:
        """Let requests be answered by the policy of an iteration, unless they are already.

        A server that was started anew serves the policy that the job began with; so each step
        that needs another asks for it.

        Raises:
            SteerwardError: If the weights are refused, or are not what they were.
        """
        if iteration == self._served:
            return
        run = self._run
        folder = run.workspace.iteration(iteration)
        progress = folder.progress(iteration)
        run.tracker.begin("swapping", progress)
        clock = Clock(["swap"])
        run.patience.begin()
        with clock.on("swap"):
            method = run.settings.training.method
            version = await run.patience.call(
                lambda: run.ports.publisher.publish(folder.policy, method)
            )
        if progress.weight_version is None:
            progress = longer(
                progress.model_copy(update={"weight_version": version}), **clock.seconds
            )
            await run.save(folder, progress)
            run.observer.event(f"iteration {iteration}: weights {version} are served")
        elif progress.weight_version != version:
            raise SteerwardError(
                f"the weights in {folder.policy} are not those that iteration {iteration} led to: "
                f"they are {version}, and were {progress.weight_version}; bring them back, or "
                "create a new job"
            )
        self._served = iteration
        run.observer.published(progress, folder.policy, version)
