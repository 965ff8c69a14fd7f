"""The process that aligns a policy for a job: a job file in, lines of JSON out, a run's folder.

    python -m steerward.training.align.process JOB.json [--end-with-parent]
    accelerate launch --config_file FILE -m steerward.training.align.process JOB.json

Its lines are those of `steerward.protocol.align_work`; rewards are asked for at a socket.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from steerward.protocol.align_work import (
    AlignDone,
    AlignJob,
    AlignMeasured,
    AlignNoted,
    AlignStep,
)
from steerward.protocol.fine_tuning import SETTINGS
from steerward.protocol.rsf import RsfSettings
from steerward.training.process import Tell, run_process


def main(arguments: list[str] | None = None) -> int:
    """Align; return the exit status."""
    return run_process("python -m steerward.training.align.process", _work, arguments)


class _Lines:
    """Tells the parent where the run is.

    Args:
        tell: Writes a line.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Tell of an optimiser step."""
        self._tell(AlignStep(step=step, steps=steps, metrics=_finite(metrics)))

    def measured(self, step: int, rewards: Mapping[str, float]) -> None:
        """Tell of an evaluation."""
        self._tell(AlignMeasured(step=step, rewards=_finite(rewards)))

    def noted(self, text: str) -> None:
        """Tell what people should know of the run."""
        self._tell(AlignNoted(text=text))


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values that JSON has a number for."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _work(content: bytes, tell: Tell) -> None:
    job = AlignJob.model_validate_json(content)
    settings = SETTINGS[job.method].model_validate(job.settings)
    assert not isinstance(settings, RsfSettings)
    from accelerate import PartialState

    from steerward.training.align.asked_rewards import asked_source
    from steerward.training.align.run import AlignRun, align

    run = AlignRun(
        settings=settings,
        base=job.base,
        rows=job.rows,
        out=job.out,
        validation=job.validation,
        name=job.name,
    )
    source = asked_source(
        job.rewards, version=job.reward_weight_version, most_candidates=job.most_candidates
    )
    report = align(run, source, _Lines(tell))
    if PartialState().is_main_process:
        tell(
            AlignDone(
                steps=report.steps,
                trained_tokens=report.trained_tokens,
                weight_version=report.weight_version,
                rewards=_finite(report.rewards),
            )
        )


if __name__ == "__main__":
    sys.exit(main())
