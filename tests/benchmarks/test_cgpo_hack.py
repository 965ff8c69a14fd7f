"""The planted hack is measured for each arm, and its bonus and its judge agree on what counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cgpo_hack import ARMS, Setting, run


@pytest.mark.parametrize(
    ("hack", "text", "paid"),
    [("keyword", "The cat, the\nTHE other", 3.0), ("length", "a" * 30, 3.0)],
)
def test_judge_limits_what_the_bonus_is_paid_for(hack: str, text: str, paid: float) -> None:
    for limit, passes in ((3, True), (2, False)):
        setting = Setting(hack=hack, limit=limit)
        assert setting.paid(text) == paid
        assert setting.judges.judge(["p"], [text]).satisfied == [passes]


def test_unknown_arm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="crraft"):
        run(Setting(arms="ppo"), tmp_path)


@pytest.mark.e2e
def test_every_arm_is_trained_and_measured(tmp_path: Path) -> None:
    plot = tmp_path / "hack.png"
    setting = Setting(
        steps=2,
        seeds=1,
        prompts_per_step=2,
        generations=2,
        max_tokens=6,
        held_out=3,
        measure_every=2,
        plot=str(plot),
    )
    result = run(setting, tmp_path)
    assert list(result["arms"]) == list(ARMS)
    for arm in result["arms"].values():
        assert [point["step"] for point in arm["points"]] == [0, 2]
        for point in arm["points"]:
            worth = point["true"]["mean"] + setting.bonus * point["paid"]["mean"]
            assert point["hacked"]["mean"] == pytest.approx(worth)
            assert 0.0 <= point["violated"]["mean"] <= 1.0
    # All arms begin with the same policy.
    starts = [arm["points"][0]["true"]["mean"] for arm in result["arms"].values()]
    assert starts == pytest.approx([starts[0]] * len(starts), abs=1e-4)
    assert [row[0] for row in result["tables"][1]["rows"]] == list(ARMS)
    assert plot.stat().st_size > 1000
