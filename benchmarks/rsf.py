"""Fine-tuning by rejection sampling: how fast it samples, where time goes, what a swap disturbs.

    python -m benchmarks.rsf [--rounds N] [--prompts FILE.jsonl.gz] [--out FILE.json]

Samples per second of a job, drawn and scored, against a plain script in a process of its own that
does the same with `generate` in static batches and a padded reward model; that both give the same
texts the same rewards is checked first. Then a small but whole job, and the share of each step of
its wall time. Then clients that ask for short completions of the policy and of a fine-tuned one,
whose weights are exchanged by those of the job's iterations again and again: requests near a swap
against those in quiet times. What a job makes of the front is in `rsf_front`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import steering_front
from benchmarks.command import main
from benchmarks.rsf_answers import rule_of
from benchmarks.rsf_jobs import JobServer
from benchmarks.rsf_shares import measure_shares, shares_table
from benchmarks.rsf_speed import SpeedSetting, measure_speed, speed_table
from benchmarks.rsf_swap import SwapSetting, measure_swaps, swap_table


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    prompts: str = ""
    """JSON lines with prompt, split and source; default: questions of our own."""
    policy: str = "pocket-policy"
    reward_model: str = "pocket"
    num_prompts: int = 64
    """Of a round."""
    candidates: int = 8
    directions: int = 8
    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 96
    concurrency: int = 16
    """Prompts that a job samples and scores at the same time."""
    plain_batches: str = "1,8"
    """Prompts of a batch of the plain script; one way each."""
    iterations: int = 3
    """Of the whole job."""
    prompts_per_iteration: int = 128
    evaluation_prompts: int = 32
    swaps: int = 20
    swap_every_s: float = 6.0
    swap_clients: int = 8
    swap_max_tokens: int = 16


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return speeds, shares, and latencies around swaps.

    Raises:
        SystemExit: If the plain script gives other rewards to the same texts.
    """
    speed_setting, swap_setting = _speed_setting(setting), _swap_setting(setting)
    speed = measure_speed(speed_setting, folder, rule_of(setting.policy))
    server = JobServer(
        folder / "shares",
        policy=setting.policy,
        reward_model=setting.reward_model,
        running=setting.concurrency * setting.candidates,
    )
    try:
        shares, job = _shares(setting, server)
        weights = sorted(job.glob("iteration-*/policy"))
        swap = measure_swaps(server.url, weights, swap_setting)
    finally:
        server.close()
    return {
        "speed": speed,
        "shares": shares,
        "swap": swap,
        "tables": [
            speed_table(speed, speed_setting),
            shares_table(shares),
            swap_table(swap, swap_setting),
        ],
    }


def prompts_of(setting: Setting, number: int, count: int) -> list[str]:
    """Return prompts that are new in each round: nothing can be kept of the rounds before."""
    source = steering_front.Setting(prompts=setting.prompts, num_prompts=count)
    known = steering_front.held_out_prompts(source)
    return [f"{known[i % len(known)]} ({number}, {i})" for i in range(count)]


def _speed_setting(setting: Setting) -> SpeedSetting:
    return SpeedSetting(
        policy=setting.policy,
        reward_model=setting.reward_model,
        rounds=setting.rounds,
        prompts=lambda number, count: prompts_of(setting, number, count),
        num_prompts=setting.num_prompts,
        candidates=setting.candidates,
        directions=setting.directions,
        temperature=setting.temperature,
        top_p=setting.top_p,
        max_tokens=setting.max_tokens,
        concurrency=setting.concurrency,
        plain_batches=[int(batch) for batch in setting.plain_batches.split(",")],
    )


def _swap_setting(setting: Setting) -> SwapSetting:
    return SwapSetting(
        clients=setting.swap_clients,
        swaps=setting.swaps,
        every_s=setting.swap_every_s,
        max_tokens=setting.swap_max_tokens,
    )


def _shares(setting: Setting, server: JobServer) -> tuple[dict[str, Any], Path]:
    # At most a tenth of the prompts are held out.
    count = max(setting.prompts_per_iteration, setting.evaluation_prompts) * 10
    return measure_shares(
        server,
        prompts_of(setting, setting.rounds, count),
        iterations=setting.iterations,
        prompts_per_iteration=setting.prompts_per_iteration,
        candidates_per_prompt=setting.candidates,
        directions=setting.directions,
        temperature=setting.temperature,
        top_p=setting.top_p,
        max_tokens=setting.max_tokens,
        concurrency=setting.concurrency,
        evaluation_prompts=setting.evaluation_prompts,
    )


if __name__ == "__main__":
    main(Setting, run)
