"""What holds of every run on preference pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerward.protocol.alignment import ModpoSettings
from steerward.protocol.errors import DatasetRefused
from steerward.protocol.mapl import MaplSettings
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
    with pytest.raises(DatasetRefused, match=r"row 1: the pair has .* is rejected, .* reads 64"):
        align(run, of_text)


def test_a_pair_that_is_too_long_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    """It was counted among the rows that were left when some were held out."""
    base = save_policy(tmp_path / "base", rule=None, positions=64)
    rows = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"Why {i}?", "chosen": "Because.", "rejected": "No."} for i in range(20)]
    pairs.append({"prompt": "Why not?", "chosen": "Because.", "rejected": "No. " * 40})
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = ModpoSettings(margins={"length": 1.0}, evaluation_prompts=2, max_tokens=4)
    run = AlignRun(settings=settings, base=base, rows=rows, out=tmp_path / "run")
    with pytest.raises(DatasetRefused, match=r"pairs\.jsonl, row 20: the pair"):
        align(run, of_text)
    assert not (run.out / "settings.json").exists()
