"""Fine-tuning in a process of its own: its end, its failures, and what a kill leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from steerward.jobs.process import needed_packages_missing
from steerward.jobs.rsf.ports import Trainer, TrainingWork
from steerward.jobs.trainer import ProcessTrainer
from steerward.protocol.errors import StorageFull, TrainingFailed
from steerward.protocol.sft_work import SftJob
from steerward.training.sft_run import fine_tune
from tests.policies import save_policy
from tests.sft_jobs import equal_tensors, sft_job, tensors

pytestmark = pytest.mark.anyio

RECIPES = Path(__file__).parents[2] / "recipes" / "rsf"
LAUNCHED = """\
compute_environment: LOCAL_MACHINE
distributed_type: {kind}
mixed_precision: 'no'
num_machines: 1
num_processes: {processes}
rdzv_backend: c10d
use_cpu: true
"""
# Fine-tunes as a server would, and tells who does it.
SERVER = """\
import asyncio, json, sys
from pathlib import Path
from steerward.jobs.rsf.ports import TrainingWork
from steerward.jobs.trainer import ProcessTrainer
from steerward.protocol.sft_work import SftJob

job = SftJob.model_validate_json(Path(sys.argv[1]).read_bytes())
paths = {name: getattr(job, name) for name in ("data", "base", "start", "out", "work")}
told = lambda *step: print(*step, flush=True)
work = TrainingWork(**paths, seed=job.seed)
asyncio.run(ProcessTrainer(job.training).train(work, told))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "base")


def work_of(job: SftJob) -> TrainingWork:
    return TrainingWork(
        data=job.data, base=job.base, start=job.start, out=job.out, work=job.work, seed=job.seed
    )


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are there."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def trainers_of(pid: int) -> list[int]:
    """Return those of them that fine-tune."""
    return [
        child
        for child in children(pid)
        if b"steerward.training.sft" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def silent(*_: object) -> None:
    """Take a step's news."""


async def test_killed_process_goes_on_and_ends_with_the_same_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sft_job(tmp_path, base, epochs=6, checkpoint_steps=5)
    trainer: Trainer = ProcessTrainer(job.training, environment={"OMP_NUM_THREADS": "1"})

    def kill(step: int, *_: object) -> None:
        if step == 12:
            for pid in trainers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingFailed, match=r"killed by signal 9: out of memory\?; log: .*\.log"):
        await trainer.train(work_of(job), kill)
    assert not job.out.exists()

    told: list[tuple[int, int, float]] = []
    report = await trainer.train(work_of(job), lambda *step: told.append(step))
    assert 6 <= told[0][0] <= 16
    assert [step for step, _, _ in told] == list(range(told[0][0], 31))
    assert report.steps == 30

    monkeypatch.setenv("CI", "1")
    whole = sft_job(tmp_path, base, name="whole", epochs=6, checkpoint_steps=5)
    expected = fine_tune(whole, silent)
    assert equal_tensors(tensors(job.out), tensors(whole.out))
    assert (report.loss, report.kl, report.tokens) == (expected.loss, expected.kl, expected.tokens)
    # Finished: read, not trained again.
    assert await trainer.train(work_of(job), silent) == report


async def test_cancelled_fine_tuning_has_no_process_any_more(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base, epochs=100)
    begun = asyncio.Event()
    running: list[int] = []

    def note(*_: object) -> None:
        running[:] = trainers_of(os.getpid())
        begun.set()

    training = asyncio.create_task(ProcessTrainer(job.training).train(work_of(job), note))
    await begun.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert len(running) == 1
    assert not Path(f"/proc/{running[0]}").exists()
    assert not job.out.exists()


def test_process_ends_with_a_killed_server(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base, epochs=100)
    path = tmp_path / "given.json"
    path.write_text(job.model_dump_json())
    command = [sys.executable, "-c", SERVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        (trainer,) = trainers_of(server.pid)
        server.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{trainer}/cmdline").exists() and is_running(trainer):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not job.out.exists()


def is_running(pid: int) -> bool:
    """Return whether a process is there and not only its exit status, which nobody fetched."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def write_launcher(folder: Path, *, processes: int) -> Path:
    """Write a configuration that starts processes on the CPU."""
    path = folder / "accelerate.yaml"
    # Accelerate starts several of them on a CPU only by what it has for GPUs.
    kind = "'NO'" if processes == 1 else "MULTI_GPU"
    path.write_text(LAUNCHED.format(kind=kind, processes=processes))
    return path


async def test_two_processes_learn_what_one_does(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"kl_coef": 0.5, "learning_rate": 1e-3}
    job = sft_job(tmp_path, base, **settings)
    config = write_launcher(tmp_path, processes=2)
    trainer = ProcessTrainer(job.training, accelerate_config=config)
    workers: set[int] = set()

    def count(*_: object) -> None:
        for launcher in trainers_of(os.getpid()):
            workers.update(trainers_of(launcher))

    report = await trainer.train(work_of(job), count)
    assert len(workers) == 2
    monkeypatch.setenv("CI", "1")
    expected = fine_tune(sft_job(tmp_path, base, name="alone", **settings), silent)
    assert (report.steps, report.tokens) == (expected.steps, expected.tokens)
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    assert report.kl == pytest.approx(expected.kl, rel=1e-3)


async def test_reason_comes_through_a_launcher(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base)
    job.data.write_text('{"messages": []}\n')
    config = write_launcher(tmp_path, processes=1)
    trainer = ProcessTrainer(job.training, accelerate_config=config)
    with pytest.raises(TrainingFailed, match=r"DatasetRefused: .*row 1: messages: List") as raised:
        await trainer.train(work_of(job), silent)
    assert str(job.work / "trainer.log") in raised.value.message
    assert "Traceback" in (job.work / "trainer.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk without room")
async def test_full_disk_is_an_error_of_its_own(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base)
    job.work.mkdir()
    (job.work / "job.json").symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="cannot be written to: No space left"):
        await ProcessTrainer(job.training).train(work_of(job), silent)


def test_packages_that_fine_tuning_needs_are_installed() -> None:
    assert needed_packages_missing() == []


@pytest.mark.parametrize(
    ("name", "kind"), [("fsdp", DistributedType.FSDP), ("deepspeed", DistributedType.DEEPSPEED)]
)
def test_launcher_reads_the_configurations(name: str, kind: DistributedType) -> None:
    config = load_config_from_file(str(RECIPES / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.mixed_precision == "bf16"
    assert config.use_cpu is False
