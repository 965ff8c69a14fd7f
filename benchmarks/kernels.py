"""How fast the kernels are on a CUDA device: attention with shared prefixes, and the epilogue.

    python -m benchmarks.kernels [--rounds N] [--calls N] [--out FILE.json]

Attention has the shapes of one layer of ArmoRM-Llama3-8B in bf16, and is measured against torch's
own attention, on padded sequences and run by run. The epilogue is what follows the last layer:
heads, gate and score. Results are checked against the references before anything is timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.command import main, table
from benchmarks.kernel_cases import CASES, KERNEL, Attention, Epilogue
from benchmarks.measure import interleaved, ratio

# bf16 holds 8 bits, and results are of order one.
ATTENTION_TOLERANCE = 2e-2
SCORE_TOLERANCE = 1e-4


def check(errors: Mapping[str, float], tolerance: float) -> Mapping[str, float]:
    """Return the errors, or end the program without a figure if one is too large."""
    # Not `error > tolerance`, which NaN would pass.
    if not all(error <= tolerance for error in errors.values()):
        raise SystemExit(f"results differ by more than {tolerance}, nothing is timed: {errors}")
    return errors


def time_methods(
    methods: Mapping[str, Callable[[], Tensor]], *, rounds: int, calls: int
) -> dict[str, Any]:
    """Return microseconds of each method, and how many times faster the kernel is."""

    def repeated(method: Callable[[], Tensor]) -> None:
        for _ in range(calls):
            method()
        torch.cuda.synchronize()

    seconds = interleaved(
        {n: lambda _, m=m: repeated(m) for n, m in methods.items()}, rounds=rounds
    )
    return {
        "us": {name: statistics.median(s) / calls * 1e6 for name, s in seconds.items()},
        "kernel_over": {n: ratio(s, seconds[KERNEL]) for n, s in seconds.items() if n != KERNEL},
    }


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 11
    calls: int = 20
    """Of each way in a round."""


@torch.inference_mode()
def run(setting: Setting, _: Path) -> dict[str, Any]:
    """Return all figures, each after its check.

    Raises:
        SystemExit: If there is no CUDA device, or results differ by more than the tolerance.
    """
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark times CUDA kernels, and torch finds no CUDA device here.")
    time_all = partial(time_methods, rounds=setting.rounds, calls=setting.calls)
    results: dict[str, Any] = {}
    for name, groups in CASES.items():
        case = Attention(groups)
        errors = check(case.errors(), ATTENTION_TOLERANCE)
        figures = time_all(case.methods())
        figures["kernel_tflops"] = case.flops / figures["us"][KERNEL] / 1e6
        results[name] = {"max_abs_error": errors, **figures}
    epilogue = Epilogue()
    errors = check(epilogue.errors(), SCORE_TOLERANCE)
    figures = time_all(epilogue.methods())
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    copy = time_all({KERNEL: block.clone})["us"][KERNEL]
    floor = {"floor_us": epilogue.floor_bytes * copy / 2**31, "copied_gb_per_s": 2**31 / copy / 1e3}
    results["epilogue, 64 candidates"] = {"max_abs_error": errors, **figures, **floor}
    device = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {**device, "cases": results, "tables": [_table(*one) for one in results.items()]}


def _table(name: str, result: dict[str, Any]) -> dict[str, Any]:
    rows = [[method, f"{us:.1f}"] for method, us in result["us"].items()]
    for key, unit in (
        ("kernel_tflops", "TFLOP/s"),
        ("floor_us", "us"),
        ("copied_gb_per_s", "GB/s"),
    ):
        if key in result:
            rows.append([key.partition("_")[0], f"{result[key]:.1f} {unit}"])
    return table(name, ["way", "us"], rows)


if __name__ == "__main__":
    main(Setting, run)
