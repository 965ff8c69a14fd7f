"""What jobs made, served beside the policies: one that does not load costs nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steerward.jobs.database import open_database
from steerward.jobs.store import JobStore
from steerward.policy.local import checkpoint
from steerward.policy.local.checkpoint import load_policy
from steerward.server.fine_tuned import FineTunedModels
from tests.policies import save_policy
from tests.policy.conftest import make_policy

NAME = "ft:tiny:rsf:12345678"


def test_a_model_that_the_device_has_no_room_for_is_left_out(
    policy_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'state.sqlite'}")
    store = JobStore(engine)
    policy = make_policy(load_policy(policy_folder, device="cpu"))
    models = FineTunedModels(store, {"tiny": policy})
    folder = save_policy(tmp_path / "made", seed=3)
    store.save_fine_tuned(
        name=NAME, job_id="job", base="tiny", kind="full", folder=str(folder), weight_version="v"
    )

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "move", fail)
        models.bring_up_to_date()
    assert not policy.variants
    assert f"{folder} cannot be loaded on cpu: CUDA out of memory" in caplog.text

    models = FineTunedModels(store, {"tiny": policy})
    models.bring_up_to_date()
    assert [*policy.variants] == [NAME]
    policy.close()
    engine.dispose()


def test_a_server_that_stops_loads_no_further_model(policy_folder: str, tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'state.sqlite'}")
    store = JobStore(engine)
    policy = make_policy(load_policy(policy_folder, device="cpu"))
    models = FineTunedModels(store, {"tiny": policy})
    store.save_fine_tuned(
        name=NAME, job_id="job", base="tiny", kind="full", folder=policy_folder, weight_version="v"
    )
    models.stop()
    models.bring_up_to_date()
    assert not policy.variants
    policy.close()
    engine.dispose()
