"""Settings, checkpoints and exit statuses of fine-tuning."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import TrainingSettings
from steerward.training.process import is_storage_full
from steerward.training.sft_folder import complete_checkpoint, mark_complete, whole_folder
from steerward.training.sft_settings import default_learning_rate, micro_batch


def checkpoint(runs: Path, step: int) -> Path:
    folder = runs / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(str(step))
    return folder


def test_unfinished_checkpoint_is_deleted_and_the_one_before_taken_up(tmp_path: Path) -> None:
    mark_complete(checkpoint(tmp_path, 9), identity="mine")
    unfinished = checkpoint(tmp_path, 10)
    assert complete_checkpoint(tmp_path, identity="mine") == tmp_path / "checkpoint-9"
    assert not unfinished.exists()


def test_complete_checkpoint_takes_the_place_of_those_before(tmp_path: Path) -> None:
    mark_complete(checkpoint(tmp_path, 9), identity="mine")
    mark_complete(checkpoint(tmp_path, 10), identity="mine")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


def test_checkpoint_of_other_work_is_not_taken_up(tmp_path: Path) -> None:
    mark_complete(checkpoint(tmp_path, 9), identity="another's")
    assert complete_checkpoint(tmp_path, identity="mine") is None
    assert complete_checkpoint(tmp_path / "nowhere", identity="mine") is None


def test_folder_that_was_not_filled_to_the_end_is_not_there(tmp_path: Path) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "parameters", "rate"),
    [
        ({"learning_rate": 0.5}, 1, 0.5),
        ({"method": "lora"}, 10**9, 1e-4),
        ({}, 8_000_000_000, 5e-6),
        ({}, 5_700_000, 7.98e-4),
        ({}, 1000, 2e-3),
    ],
    ids=["set", "lora", "8b", "pocket", "tiny"],
)
def test_learning_rate_suits_the_size(
    settings: dict[str, object], parameters: int, rate: float
) -> None:
    found = default_learning_rate(TrainingSettings.model_validate(settings), parameters)
    assert found == pytest.approx(rate, rel=1e-2)


def test_batch_is_shared_out_over_processes() -> None:
    assert micro_batch(TrainingSettings(batch_size=32), 4) == 8
    assert micro_batch(TrainingSettings(batch_size=32, micro_batch_size=2), 4) == 2
    with pytest.raises(InvalidRequest, match="cannot be shared out over 3 processes"):
        micro_batch(TrainingSettings(batch_size=32), 3)
    with pytest.raises(InvalidRequest, match="no multiple of micro_batch_size 16 times 4"):
        micro_batch(TrainingSettings(batch_size=32, micro_batch_size=16), 4)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk without room")
def test_full_disk_is_told_from_other_failures(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised:
        Path("/dev/full").write_text("x")
    assert is_storage_full(raised.value, tmp_path)
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = raised.value
    assert is_storage_full(wrapped, tmp_path)
    for code in (errno.EDQUOT, errno.EFBIG):
        assert is_storage_full(OSError(code, os.strerror(code)), tmp_path)
        assert is_storage_full(RuntimeError(f"io: {os.strerror(code)}"), tmp_path)
    assert not is_storage_full(ValueError("no such layer"), tmp_path)
