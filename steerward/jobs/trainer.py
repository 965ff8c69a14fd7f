"""Fine-tuning of rejection sampling, in a process of its own.

What it is given and says is in `steerward.protocol.sft_work`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from steerward.jobs.process import TrainingProcess
from steerward.jobs.rsf.ports import TrainingProgress, TrainingReport, TrainingWork
from steerward.protocol.errors import TrainingFailed
from steerward.protocol.process import LOG_FILE
from steerward.protocol.rsf import TrainingSettings
from steerward.protocol.sft_work import REPORT_FILE, SftJob, SftProgress, SftReport

_MODULE = "steerward.training.sft"


class ProcessTrainer:
    """Fine-tunes in a process of its own.

    Args:
        settings: Of the job.
        accelerate_config: See `TrainingProcess`.
        environment: The same.
        keeps_open: The same.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        accelerate_config: Path | None = None,
        environment: Mapping[str, str] | None = None,
        keeps_open: Sequence[int] = (),
    ) -> None:
        self._settings = settings
        self._process = TrainingProcess(
            _MODULE,
            accelerate_config=accelerate_config,
            environment=environment,
            keeps_open=keeps_open,
        )

    async def train(self, work: TrainingWork, on_progress: TrainingProgress) -> TrainingReport:
        """Fine-tune; if cancelled, the process is killed before this returns.

        Raises:
            StorageFull: If there was no room for a checkpoint or for the weights.
            TrainingFailed: If there are no weights for another reason.
        """

        def hear(line: bytes) -> None:
            # What is no step is a launcher's own word.
            with suppress(ValidationError):
                progress = SftProgress.model_validate_json(line)
                on_progress(progress.step, progress.steps, progress.loss)

        if not (work.out / REPORT_FILE).is_file():
            await self._process.run(self._job(work), work.work, hear)
        return _report(work)

    def _job(self, work: TrainingWork) -> SftJob:
        return SftJob(
            data=work.data.resolve(),
            base=work.base.resolve(),
            start=work.start.resolve() if work.start else None,
            out=work.out.resolve(),
            work=work.work.resolve(),
            seed=work.seed,
            training=self._settings,
        )


def _report(work: TrainingWork) -> TrainingReport:
    path = work.out / REPORT_FILE
    try:
        report = SftReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrainingFailed(
            f"fine-tuning ended without a report in {work.out} ({type(error).__name__}); its log "
            f"is {work.work / LOG_FILE}"
        ) from error
    return TrainingReport(
        loss=report.loss,
        kl=report.kl,
        tokens=report.tokens,
        steps=report.steps,
        seconds=report.seconds,
        left_out=report.left_out,
    )
