"""The README's examples run and print what it says; figures are those of the reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.examples import differs, examples, run_example, served
from docs.figures import PAGES, README, with_figures

# Scores of another processor differ in the last digits that are shown.
TOLERANCE = 5e-3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_reports(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_figures(text) == text, "run python -m docs.figures"


def test_first_result_comes_early() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```text output") < 25
    assert {"make serve", "make test"} <= {line[:10].strip() for line in lines[:12]}


@pytest.mark.e2e
def test_examples_print_what_the_readme_says(tmp_path: Path) -> None:
    found = examples(README.read_text(encoding="utf-8"))
    assert len(found) >= 2
    with served() as url:
        for example in found:
            printed = run_example(example, url, tmp_path)
            assert not differs(example["output"], printed, tolerance=TOLERANCE), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_numbers_that_differ_are_noticed() -> None:
    assert differs("score +0.700\n", "score +0.710\n", tolerance=TOLERANCE)
    assert not differs("score +0.700\n", "score +0.701\n", tolerance=TOLERANCE)
    assert differs("a +0.700\n", "b +0.700\n", tolerance=TOLERANCE)
