"""GRPO on several objectives is compared with TRL, trained, measured and told at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.grpo_objectives import ARMS, Setting, difference_from_trl, run
from steerward.protocol.errors import InvalidRequest
from tests.policies import save_policy

OBJECTIVES = ["helpfulness", "truthfulness", "clarity", "compliance"]


def tiny(tmp_path: Path, **more: object) -> Setting:
    policy = save_policy(tmp_path / "policy", rule=None, positions=512)
    sizes = {"steps": 2, "seeds": 1, "prompts_per_step": 2, "generations": 4, "max_tokens": 6}
    given = {**sizes, "held_out": 3, "measure_every": 1, "work": str(tmp_path / "runs"), **more}
    return Setting(policy=str(policy), **given)  # pyright: ignore[reportArgumentType]


def test_unknown_arm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="sum, GDPO"):
        run(tiny(tmp_path, arms="ppo"), tmp_path)


@pytest.mark.e2e
def test_all_arms_are_trained_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    plot = tmp_path / "pictures" / "curves.png"
    setting = tiny(tmp_path, plot=str(plot))
    result = run(setting, tmp_path)
    assert result["objectives"] == OBJECTIVES
    assert list(result["arms"]) == list(ARMS)
    for name, arm in result["arms"].items():
        assert arm["steps"] == [0, 1, 2]
        assert all(gains[0]["mean"] == 0.0 for gains in arm["gains"].values())
        last = {objective: gains[-1]["mean"] for objective, gains in arm["gains"].items()}
        assert arm["worst"]["mean"] == pytest.approx(min(last.values()))
        assert arm["uneven"]["mean"] == pytest.approx(max(last.values()) - min(last.values()))
        assert arm["gains_by_seed"] == [pytest.approx(last)]
        assert 0 < arm["weights_ms"] < 1e3 * arm["cpu_s"]
        assert (tmp_path / "runs" / name / "0" / "policy").is_dir()
    assert [table["rows"][0][0] for table in result["tables"]] == ["sum", "sum", "sum, seed 0"]
    assert plot.stat().st_size > 1000
    assert (tmp_path / "runs" / "report.html").is_file()
    json.dumps(result)
    again = run(setting, tmp_path)
    assert again["arms"] == result["arms"]
    with pytest.raises(InvalidRequest, match="finished run with other"):
        run(tiny(tmp_path, learning_rate=1e-6), tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("aggregation", ARMS.values())
def test_advantages_are_trls(tmp_path: Path, aggregation: str) -> None:
    setting = tiny(tmp_path)
    assert difference_from_trl(setting, aggregation, tmp_path / "runs") == 0.0
