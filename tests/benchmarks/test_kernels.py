"""The benchmark of the kernels needs a GPU; what it compares can be checked without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.kernel_cases import BY_RUN, EAGER, KERNEL, PADDED, Attention, Epilogue, Group
from benchmarks.kernels import ATTENTION_TOLERANCE, SCORE_TOLERANCE, Setting, check, run

GROUPS = (Group(7, (5, 3)), Group(0, (9,)), Group(4, (1,)))


def test_all_ways_of_attention_agree() -> None:
    case = Attention(GROUPS, heads=4, key_heads=2, channels=16, dtype=torch.float32, device="cpu")
    assert set(case.methods()) == {KERNEL, PADDED, BY_RUN}
    assert set(case.errors()) == {KERNEL, PADDED, BY_RUN}
    check(case.errors(), 1e-5)


def test_all_ways_agree_in_the_type_that_is_measured() -> None:
    check(Attention(GROUPS, heads=2, key_heads=1, device="cpu").errors(), ATTENTION_TOLERANCE)


def test_flops_count_every_visible_key_once() -> None:
    case = Attention(GROUPS[:1], heads=1, key_heads=1, channels=16, device="cpu")
    seen = (7 * 8 // 2) + (5 * 7 + 5 * 6 // 2) + (3 * 7 + 3 * 4 // 2)
    assert case.flops == 2 * 2 * 16 * seen


def test_all_ways_of_the_epilogue_agree() -> None:
    case = Epilogue(hidden=32, gate_hidden=16, tokens=64, device="cpu")
    assert set(case.methods()) == {KERNEL, EAGER}
    check(case.errors(), SCORE_TOLERANCE)
    weights = 19 * 32 + 16 * 32 + 2 * 16 * 16 + 19 * 16
    assert case.floor_bytes == 4 * weights + 2 * 32 * (64 + 8)


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_results_that_differ_end_the_run(error: float) -> None:
    with pytest.raises(SystemExit, match=r"differ by more than 0.1, nothing is timed"):
        check({KERNEL: error}, 0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to measure")
def test_without_a_device_the_benchmark_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="torch finds no CUDA device here"):
        run(Setting(), tmp_path)
