"""Fine-tuning a policy: what is learned, where it goes, and that a kill changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steerward.models.source import weight_version
from steerward.policy.local.checkpoint import load_policy
from steerward.protocol.errors import CheckpointRefused, SteerwardError, TrainingFailed
from steerward.protocol.sft_work import SftJob, SftProgress
from steerward.training.sft_run import fine_tune
from tests.policies import save_policy
from tests.policy.conftest import make_policy, started
from tests.sft_jobs import equal_tensors, sft_job, store_in_bfloat16, tensors

NEXT_TO_NOTHING = 1e-9
"""A learning rate that moves no weight."""


@pytest.fixture(autouse=True)
def without_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process that fine-tunes says so by HF_HUB_OFFLINE before it loads the library.
    monkeypatch.setenv("CI", "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "base")


def silent(_: SftProgress) -> None:
    """Take a step's news."""


def test_loss_falls_and_the_folder_is_a_policy(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base, epochs=4)
    told: list[SftProgress] = []
    report = fine_tune(job, told.append)

    assert [one.step for one in told] == list(range(1, 21))
    assert {one.steps for one in told} == {20}
    assert report.loss < 0.5 * told[0].loss
    assert report.loss == pytest.approx((told[-2].loss + told[-1].loss) / 2)
    assert report.tokens == told[-1].tokens
    assert report.kl > 0.1
    assert not (job.work / "checkpoints").exists()

    policy = load_policy(str(job.out), device="cpu")
    assert policy.rule is not None
    assert policy.rule.name == "tiny"
    assert policy.chat is not None
    for name in ("config.json", "generation_config.json", "conditioning.json", "tokenizer.json"):
        assert (job.out / name).read_bytes() == (base / name).read_bytes()


def test_finished_fine_tuning_is_not_done_again(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base)
    report = fine_tune(job, silent)
    told: list[SftProgress] = []
    assert fine_tune(job, told.append) == report
    assert not told


def test_bfloat16_policy_goes_on_from_its_float32_copy(tmp_path: Path) -> None:
    base = save_policy(tmp_path / "base")
    store_in_bfloat16(base)
    first = sft_job(tmp_path, base, name="first", learning_rate=1e-5)
    fine_tune(first, silent)
    assert {t.dtype for t in tensors(first.out).values()} == {torch.bfloat16}
    master = tensors(first.out / "master")
    assert {t.dtype for t in master.values()} == {torch.float32}
    rounded = {key: value.bfloat16() for key, value in master.items()}
    assert equal_tensors(rounded, tensors(first.out))
    assert not equal_tensors({k: v.float() for k, v in rounded.items()}, master)

    second = sft_job(tmp_path, base, name="second", start=first.out, learning_rate=NEXT_TO_NOTHING)
    fine_tune(second, silent)
    after = tensors(second.out / "master")
    assert all(torch.allclose(after[key], master[key], rtol=0, atol=1e-7) for key in master)
    load_policy(str(second.out), device="cpu")


def test_adapter_is_taken_up_and_served(base: Path, tmp_path: Path) -> None:
    first = sft_job(tmp_path, base, name="first", method="lora")
    report = fine_tune(first, silent)
    assert sorted(path.name for path in first.out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "report.json",
    ]
    config = json.loads((first.out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"

    second = sft_job(tmp_path, base, name="second", method="lora", start=first.out)
    further = fine_tune(second, silent)
    assert further.kl > report.kl > 0
    assert further.loss < report.loss
    assert further.parameters == report.parameters == 16384

    async def serve() -> None:
        policy = await started(make_policy(load_policy(str(base), device="cpu")))
        try:
            version = await asyncio.to_thread(policy.load_adapter, "tuned", second.out)
        finally:
            policy.close()
        assert version == weight_version(second.out)

    asyncio.run(serve())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_without_a_step_worth_the_name_nothing_has_moved(
    base: Path, tmp_path: Path, method: str
) -> None:
    job = sft_job(tmp_path, base, method=method, learning_rate=NEXT_TO_NOTHING, kl_coef=0.5)
    assert fine_tune(job, silent).kl == pytest.approx(0, abs=1e-6)


def test_penalty_keeps_the_policy_near_its_base(base: Path, tmp_path: Path) -> None:
    free = fine_tune(sft_job(tmp_path, base, name="free"), silent)
    held = fine_tune(sft_job(tmp_path, base, name="held", kl_coef=5.0), silent)
    assert held.kl < 0.5 * free.kl
    assert held.loss > free.loss


class Killed(Exception):
    """Stands where a kill would come."""


@pytest.mark.parametrize("killed_at", [5, 10], ids=["in-the-middle", "after-the-last-step"])
def test_broken_off_training_ends_with_the_same_weights(
    base: Path, tmp_path: Path, killed_at: int
) -> None:
    options = {
        "method": "lora",
        "lora": {"dropout": 0.2, "rank": 4},
        "epochs": 2,
        "checkpoint_steps": 3,
    }
    whole = sft_job(tmp_path, base, name="whole", **options)
    expected = fine_tune(whole, silent)

    def kill(progress: SftProgress) -> None:
        if progress.step == killed_at:
            raise Killed

    job = sft_job(tmp_path, base, name="killed", **options)
    with pytest.raises(Killed):
        fine_tune(job, kill)
    assert not job.out.exists()
    told: list[SftProgress] = []
    report = fine_tune(job, told.append)

    assert told[0].step == killed_at - (killed_at - 1) % 3
    name = "adapter_model.safetensors"
    assert equal_tensors(tensors(job.out, name=name), tensors(whole.out, name=name))
    assert (report.loss, report.kl, report.tokens) == (
        expected.loss,
        expected.kl,
        expected.tokens,
    )


def test_weights_that_could_not_be_saved_are_not_trained_again(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base, name="place/out")
    job.out.parent.write_text("no folder")
    job = job.model_copy(update={"work": tmp_path / "work"})
    with pytest.raises(NotADirectoryError):
        fine_tune(job, silent)
    job.out.parent.unlink()
    told: list[SftProgress] = []
    report = fine_tune(job, told.append)
    assert not told
    assert report.steps == 5
    assert report.loss < 6


def test_micro_batches_change_the_weights_by_rounding_only(base: Path, tmp_path: Path) -> None:
    whole = sft_job(tmp_path, base, name="whole", kl_coef=0.5, learning_rate=1e-3)
    parts = sft_job(
        tmp_path, base, name="parts", kl_coef=0.5, learning_rate=1e-3, micro_batch_size=2
    )
    one, other = fine_tune(whole, silent), fine_tune(parts, silent)
    assert other.loss == pytest.approx(one.loss, rel=1e-3)
    assert other.kl == pytest.approx(one.kl, rel=1e-2)
    assert other.tokens == one.tokens


def test_loss_that_is_no_number_ends_the_training(base: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, base, epochs=20, learning_rate=1.0, weight_decay=1e38)
    with pytest.raises(TrainingFailed, match=r"the loss of step \d+ is (nan|inf); lower"):
        fine_tune(job, silent)
    assert not job.out.exists()


def start_from_weights(base: Path, out: Path) -> SftJob:
    return sft_job(out, base, method="lora", start=base)


def start_from_nothing(base: Path, out: Path) -> SftJob:
    (out / "empty").mkdir()
    return sft_job(out, base, start=out / "empty")


def write_where_something_is(base: Path, out: Path) -> SftJob:
    (out / "out").mkdir()
    (out / "out" / "mine.txt").touch()
    return sft_job(out, base)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (start_from_weights, CheckpointRefused, "holds no adapter"),
        (start_from_nothing, CheckpointRefused, "policy in .*empty"),
        (write_where_something_is, SteerwardError, "holds no finished fine-tuning"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    base: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], SftJob],
    error: type[SteerwardError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        fine_tune(make(base, tmp_path), silent)
