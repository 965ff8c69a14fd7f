"""Runs the tests marked `interpreter` in a process of their own, as part of any pytest run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import triton

_LANE_TIMEOUT_S = 840


@pytest.mark.interpreter
@pytest.mark.timeout(_LANE_TIMEOUT_S + 30)
@pytest.mark.skipif(
    triton.knobs.runtime.interpret, reason="this process is the interpreter's already"
)
def test_kernels_match_their_references_in_the_interpreter(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    here = Path(__file__)
    lane = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(here.parent)),
            *("-m", "interpreter", f"--ignore={here}"),
            *("-q", "--no-header", "-p", "no:cacheprovider", f"--junitxml={report}"),
        ],
        cwd=request.config.rootpath,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=_LANE_TIMEOUT_S,
        check=False,
    )
    output = f"{lane.stdout}\n{lane.stderr}"
    assert lane.returncode == 0, output
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in ElementTree.parse(report).iter("testsuite"))
        for name in ("tests", "failures", "errors", "skipped")
    }
    assert counts["tests"] > 0, output
    assert (counts["failures"], counts["errors"], counts["skipped"]) == (0, 0, 0), output
