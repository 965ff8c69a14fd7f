"""The output of bulk scoring belongs to one run, whatever moment a kill comes at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.config import ScoreFileConfig
from steerward.engine.bulk_output import BulkOutput, state_path
from steerward.engine.loading import load_engine
from steerward.metrics import Metrics
from steerward.protocol.errors import InvalidRequest
from tests.golden_cases import GOLDEN


def output(folder: Path, **options: Any) -> BulkOutput:
    """Return the output of a run on one row, not opened yet."""
    source = folder / "in.jsonl"
    source.write_text('{"prompt": "a", "candidates": ["b"]}\n')
    settings = {"reward_model": str(GOLDEN / "armorm"), "device": "cpu", **options}
    config = ScoreFileConfig(source=source, target=folder / "out.jsonl", **settings)
    engine = load_engine(config.reward_model, name="a", config=config, metrics=Metrics())
    return BulkOutput(config, engine)


def begin(unfinished: BulkOutput) -> None:
    """Write one row, as a run does that is killed after it."""
    unfinished.open()
    unfinished.write({"row": 0})
    unfinished.close()


def resume(again: BulkOutput) -> int:
    """Return how many rows a run finds done."""
    done = again.open()
    again.close()
    return done


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"dtype": "bfloat16"}, "dtype"),
        ({"max_input_tokens": 100}, "max_input_tokens"),
        ({"directions": [{"objective_0": 1.0}]}, "directions"),
        ({"weights": {"objective_0": 1.0}}, "weights"),
        ({"explain": True}, "explain"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_change_numbers_are_not_mixed(
    tmp_path: Path, options: dict[str, Any], changed: str
) -> None:
    begin(output(tmp_path))
    with pytest.raises(InvalidRequest, match=f"begun with another {changed};"):
        output(tmp_path, **options).open()


def test_settings_count_as_they_were_resolved(tmp_path: Path) -> None:
    begin(output(tmp_path, directions=[{"objective_0": 1.0}]))
    same = {"dtype": "float32", "max_input_tokens": 2048}
    assert resume(output(tmp_path, directions=[{"objective_0": 1.0}], **same)) == 1


def test_device_is_part_of_the_state(tmp_path: Path) -> None:
    begin(output(tmp_path))
    path = state_path(tmp_path / "out.jsonl")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "cuda"}))
    with pytest.raises(InvalidRequest, match="begun with another device;"):
        output(tmp_path).open()


@pytest.mark.parametrize("has_old_state", [False, True])
def test_kill_before_the_state_was_written_leaves_an_output_to_begin_with(
    tmp_path: Path, has_old_state: bool
) -> None:
    """Only --overwrite took such an output, though it was empty."""
    (tmp_path / "out.jsonl").touch()
    if has_old_state:
        state_path(tmp_path / "out.jsonl").write_text('{"weight_version": "of another run"}')
    assert resume(output(tmp_path)) == 0
    begin(output(tmp_path))
    assert resume(output(tmp_path)) == 1
