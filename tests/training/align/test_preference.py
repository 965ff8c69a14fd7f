"""What holds of every run on preference pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerward.protocol.alignment import MaplSettings, ModpoSettings
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.run import AlignRun, AnySettings, align
from tests.policies import save_policy
from tests.training.align.test_online import of_text


@pytest.mark.parametrize(
    "settings",
    [
        ModpoSettings(margins={"length": 1.0}, batch_size=1),
        MaplSettings(lambda_intra=0.0, lambda_inter=0.0, batch_size=1),
    ],
    ids=["modpo", "mapl"],
)
def test_a_pair_that_the_policy_cannot_read_whole_is_refused_with_both_lengths(
    settings: AnySettings, tmp_path: Path
) -> None:
    base = save_policy(tmp_path / "base", rule=None, positions=64)
    rows = tmp_path / "pairs.jsonl"
    pairs = (
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": "Why not?", "chosen": "Because.", "rejected": "No. " * 40},
    )
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run = AlignRun(settings=settings, base=base, rows=rows, out=tmp_path / "run")
    with pytest.raises(DatasetRefused, match="pair 1 has .* what is rejected, .* reads 64"):
        align(run, of_text)
