"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping

from steerward.evaluation.judge_bench import JUDGE_BENCH
from steerward.evaluation.outcome import Benchmark
from steerward.evaluation.reward_bench import REWARD_BENCH
from steerward.evaluation.reward_bench_2 import REWARD_BENCH_2
from steerward.evaluation.rm_bench import RM_BENCH

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (REWARD_BENCH, REWARD_BENCH_2, RM_BENCH, JUDGE_BENCH)
}
