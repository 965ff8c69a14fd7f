"""The page of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerward.jobs.rsf.report import write_report
from steerward.jobs.rsf.samples import write_samples
from steerward.jobs.rsf.workspace import Workspace
from steerward.protocol.fine_tuning import IterationProgress
from tests.jobs.rsf.playing import RULE
from tests.jobs.rsf.test_evaluation import answer


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    for number in range(2):
        progress = IterationProgress(iteration=number, sampled=1234, rewards={"<help>": 0.5})
        found.iteration(number).save(progress)
    return found


def test_fronts_of_all_iterations_are_on_the_page(workspace: Workspace) -> None:
    rewards = {"help": 0.5, "length": 1.0}
    for number in range(2):
        rows = [answer(n, v, 0.1, rewards=rewards) for n in range(2) for v in range(2)]
        write_samples(workspace.iteration(number).evaluation, rows)
    write_report(workspace, RULE, 1)
    page = workspace.report.read_text()
    assert page.count("<svg") == 1
    assert "Measured on 2 prompts" in page
    assert "1,234" in page
    assert "&lt;help&gt;" in page
    assert "<help>" not in page


def test_a_job_that_measured_nothing_has_a_table_only(workspace: Workspace) -> None:
    write_samples(workspace.iteration(0).evaluation, [])
    write_report(workspace, RULE, 1)
    page = workspace.report.read_text()
    assert "<svg" not in page
    assert "<table>" in page
