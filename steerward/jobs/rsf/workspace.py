"""The folder of a job: one folder an iteration, one file a completed step.

A step is done when its file is there under its final name, and not before: everything is written
under another name, made durable, and renamed. What a killed step left behind is written again.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.disk import BUILDING, write_whole
from steerward.protocol.fine_tuning import IterationProgress
from steerward.protocol.sft_work import MASTER

# End of the name of what is not whole any more.
_REMOVED = ".removed"


@dataclass(frozen=True, slots=True)
class IterationFolder:
    """Files of one iteration."""

    path: Path

    @property
    def parts(self) -> Path:
        """Samples with their rewards, block by block, while they are drawn."""
        return self.path / "parts"

    @property
    def samples(self) -> Path:
        """All samples, selected or why not."""
        return self.path / "samples.parquet"

    @property
    def selected(self) -> Path:
        """What the policy is fine-tuned on."""
        return self.path / "selected.jsonl"

    @property
    def training(self) -> Path:
        """What lets a killed training go on."""
        return self.path / "training"

    @property
    def policy(self) -> Path:
        """The policy that the iteration led to, or its adapter."""
        return self.path / "policy"

    @property
    def master(self) -> Path:
        """Its weights in float32, where they are stored with fewer bits."""
        return self.policy / MASTER

    @property
    def evaluation_parts(self) -> Path:
        """Answers to evaluation prompts, while they are drawn."""
        return self.path / "evaluation-parts"

    @property
    def evaluation(self) -> Path:
        """Answers to evaluation prompts."""
        return self.path / "evaluation.parquet"

    @property
    def has_begun(self) -> bool:
        """Whether anything of it is done."""
        return any(path.exists() for path in (self.parts, self.samples, self.policy))

    def save(self, progress: IterationProgress) -> None:
        """Keep what is known of the iteration."""
        write_whole(
            self.path / "progress.json", lambda path: path.write_text(progress.model_dump_json())
        )

    def progress(self, iteration: int) -> IterationProgress:
        """Return what is known of the iteration so far."""
        path = self.path / "progress.json"
        if not path.exists():
            return IterationProgress(iteration=iteration)
        return IterationProgress.model_validate_json(path.read_text())


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of a job."""

    path: Path

    def iteration(self, number: int) -> IterationFolder:
        """Return the folder of an iteration; it is made when something is written to it."""
        return IterationFolder(self.path / f"iteration-{number:03d}")

    def prune(self, *, chosen: int) -> None:
        """Remove what only further iterations would begin from, except the chosen iteration's."""
        kept = self.iteration(chosen).master
        for master in sorted(self.path.glob(f"iteration-*/policy/{MASTER}")):
            if master != kept:
                remove_folder(master)

    def tidy(self) -> None:
        """Remove what killed runs were writing or removing; nobody else may be at it."""
        for end in (BUILDING, _REMOVED):
            for path in [*self.path.rglob(f".*{end}")]:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    @property
    def results(self) -> Path:
        """Every sample, as JSON lines."""
        return self.path / "results.jsonl"

    @property
    def report(self) -> Path:
        """A page with the fronts of all iterations."""
        return self.path / "report.html"


def remove_folder(path: Path) -> None:
    """Remove a folder that nothing needs any more, so that no half of it can be taken for one."""
    if not path.exists():
        return
    doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_REMOVED}")
    path.rename(doomed)
    shutil.rmtree(doomed)
