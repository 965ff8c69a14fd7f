"""How tests ask a judge about one completion."""

from __future__ import annotations

from typing import Any

from steerward.judges.judge import Judge, Turns, Verdict


def verdict_of(judge: Judge, completion: Turns, **row: Any) -> Verdict | None:
    (verdict,) = judge.judge(["Well?"], [completion], rows=[row])
    return verdict
