"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import pages

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run python -m docs.generate"


def test_architecture_fits_a_page() -> None:
    assert len((DOCS / "architecture.md").read_text().splitlines()) <= 80
