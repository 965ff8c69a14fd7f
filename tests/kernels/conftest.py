"""Puts each kernel test into the process it needs.

Triton decides when a kernel is decorated whether it is interpreted, so one process can hold either
interpreted or compiled kernels. Tests marked `interpreter` run in a second process, which
test_interpreter_lane.py starts; all others run in the process that pytest was started in.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton

HERE = Path(__file__).parent
INTERPRETER_LANE = HERE / "test_interpreter_lane.py"


def _reason_to_skip(item: pytest.Item) -> str | None:
    interpreting = bool(triton.knobs.runtime.interpret)
    if item.get_closest_marker("interpreter") and not interpreting:
        return "runs in the process that test_interpreter_lane.py starts (TRITON_INTERPRET=1)"
    if item.get_closest_marker("compile") and interpreting:
        return "compiles kernels; this process interprets them (TRITON_INTERPRET=1)"
    if item.get_closest_marker("gpu") and interpreting:
        return "runs compiled kernels; this process interprets them (TRITON_INTERPRET=1)"
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        return "needs a CUDA device"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_lane_collected = any(item.path == INTERPRETER_LANE for item in items)
    in_other_process: list[pytest.Item] = []
    for item in items:
        if HERE not in item.path.parents or item.path == INTERPRETER_LANE:
            continue
        reason = _reason_to_skip(item)
        if reason is not None and is_lane_collected and item.get_closest_marker("interpreter"):
            in_other_process.append(item)
        elif reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("interpreter"):
            # The interpreter computes in numpy, which warns where a device makes NaN silently.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
    if in_other_process:
        config.hook.pytest_deselected(items=in_other_process)
        items[:] = [item for item in items if item not in in_other_process]


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.interpreter, id="interpreted"),
        pytest.param("cuda", marks=pytest.mark.gpu, id="cuda"),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """Return the device whose kernels a test compares with the reference on the CPU."""
    return request.param
