"""Two processes whose rows have different numbers of conversations compute one loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policies import save_policy
from tests.training.align.mapl import process
from tests.two_processes import answers_of_two


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_two_processes_compute_the_loss_and_the_metrics_of_one(tmp_path: Path, kind: str) -> None:
    """TRL gathers a number for each pair of conversations, of which one process had more."""
    base = save_policy(tmp_path / "base")
    save_policy(tmp_path / "reference", seed=1)
    whole = process.told(process.trainer_of(kind, base, tmp_path / "one"), range(6))
    found = answers_of_two(process.__name__, kind, str(base), str(tmp_path))
    mean = sum(one["loss"] for one in found) / 2
    assert mean == pytest.approx(whole["loss"], rel=1e-4)
    assert found[0]["metrics"].keys() == whole["metrics"].keys()
    for name, values in whole["metrics"].items():
        for one in found:
            assert one["metrics"][name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
