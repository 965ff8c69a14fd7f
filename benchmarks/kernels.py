"""How fast the kernels are on a CUDA device: attention with shared prefixes, and the epilogue.

    python -m benchmarks.kernels [--rounds N] [--calls N] [--out FILE.json]

Attention has the shapes of one layer of ArmoRM-Llama3-8B in bf16, and is measured against torch's
own attention, on padded sequences and run by run. The epilogue is what follows the last layer:
heads, gate and score. Results are checked against the references before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernel_cases import CASES, KERNEL, Attention, Epilogue
from benchmarks.measure import environment, finish, interleaved, ratio

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

    seconds = interleaved({n: partial(repeated, m) for n, m in methods.items()}, rounds=rounds)
    return {
        "us": {name: statistics.median(s) / calls * 1e6 for name, s in seconds.items()},
        "kernel_over": {n: ratio(s, seconds[KERNEL]) for n, s in seconds.items() if n != KERNEL},
    }


@torch.inference_mode()
def run(*, rounds: int, calls: int) -> dict[str, Any]:
    """Return all figures, each after its check, and print the table."""
    results: dict[str, Any] = {}
    for name, groups in CASES.items():
        case = Attention(groups)
        errors = check(case.errors(), ATTENTION_TOLERANCE)
        figures = time_methods(case.methods(), rounds=rounds, calls=calls)
        figures["kernel_tflops"] = case.flops / figures["us"][KERNEL] / 1e6
        results[name] = {"max_abs_error": errors, **figures}
    epilogue = Epilogue()
    errors = check(epilogue.errors(), SCORE_TOLERANCE)
    figures = time_methods(epilogue.methods(), rounds=rounds, calls=calls)
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    copy = time_methods({KERNEL: block.clone}, rounds=rounds, calls=calls)["us"][KERNEL]
    floor = {"floor_us": epilogue.floor_bytes * copy / 2**31, "copied_gb_per_s": 2**31 / copy / 1e3}
    results["epilogue, 64 candidates"] = {"max_abs_error": errors, **figures, **floor}
    for name, result in results.items():
        print(name)
        for method, us in result["us"].items():
            print(f"  {method:16} {us:10.1f} us")
        for key in ("kernel_tflops", "floor_us", "copied_gb_per_s"):
            if key in result:
                print(f"  {key:16} {result[key]:10.1f}")
    return results


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--calls", type=int, default=20, help="calls of each way in a round")
    parser.add_argument("--out", type=Path, help="file that keeps the result")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark times CUDA kernels, and torch finds no CUDA device here.")
    result = run(rounds=options.rounds, calls=options.calls)
    device = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    finish({"benchmark": "kernels", **environment(), **device, **result}, options.out)


if __name__ == "__main__":
    main()
