"""The reference pages say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.generate import pages
from steerward.training.data.labels import label_matrix, load_objectives
from steerward.training.data.rows import PreferencePair, RatedResponse

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run python -m docs.generate"


def test_architecture_fits_a_page() -> None:
    assert len((DOCS / "architecture.md").read_text().splitlines()) <= 80


def test_examples_of_the_data_page_follow_the_schemas(tmp_path: Path) -> None:
    rating, pair, objectives = re.findall(
        r"```json\n(.*?)```", (DOCS / "data.md").read_text(), re.DOTALL
    )
    path = tmp_path / "objectives.json"
    path.write_text(objectives)
    row = RatedResponse.model_validate_json(rating)
    labels = label_matrix([row], load_objectives(path))
    assert labels[0, 0] == 0.75
    known = {"id", "source", "split", "messages", "chosen", "rejected", "category"}
    assert set(json.loads(pair)) == known
    assert PreferencePair.model_validate_json(pair).category == "quality"
