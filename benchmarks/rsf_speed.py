"""Samples per second: drawn and scored by a job, and by a plain script with `generate`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import table
from benchmarks.measure import orders, ratio
from benchmarks.peers.plain_rsf import Work
from benchmarks.rsf_jobs import JobServer
from benchmarks.throughput import TOLERANCE
from steerward.jobs.rsf.samples import SampleRow, read_samples
from steerward.models.source import resolve_source
from steerward.protocol.conditioning import ConditioningRule, conditioned_turns
from steerward.protocol.fine_tuning import FINAL_STATUSES, Job

OURS = "a job of steerward"
_BEFORE_TRAINING = ("waiting", "evaluating", "sampling", "selecting")
CHECK = -2
"""Round on whose samples both must agree: before all others, and never timed."""


@dataclass(frozen=True, slots=True)
class SpeedSetting:
    """What is drawn in a round."""

    policy: str
    reward_model: str
    rounds: int
    prompts: Callable[[int, int], list[str]]
    """So many prompts of a round, by its number: others in each."""
    num_prompts: int
    candidates: int
    directions: int
    temperature: float
    top_p: float
    max_tokens: int
    concurrency: int
    plain_batches: Sequence[int]
    """Prompts of a batch of the plain script; one way each."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one round of one way took."""

    sampling_s: float
    scoring_s: float
    samples: int
    tokens: int

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.sampling_s + self.scoring_s


class PlainRounds:
    """The plain script, a process a round.

    Args:
        setting: What is drawn.
        rule: How the policy reads a direction.
        folder: For files.
        batch: Prompts of a batch.
    """

    def __init__(
        self, setting: SpeedSetting, rule: ConditioningRule, folder: Path, *, batch: int
    ) -> None:
        self._setting = setting
        self._rule = rule
        self._folder = folder
        self._batch = batch

    def draw(self, number: int) -> Sampled:
        """Draw and score a round."""
        setting = self._setting
        prompts = setting.prompts(number, setting.num_prompts)
        angles = angles_of(self._rule, setting.directions)
        systems = [self._rule.condition(self._rule.at_angle(one)).system for one in angles]
        requests = [
            list(map(dict, conditioned_turns(_turns(prompt), systems[place % len(systems)])))
            for place, prompt in enumerate(prompts)
        ]
        work = Work(
            requests=requests,
            candidates=setting.candidates,
            batch=self._batch,
            temperature=setting.temperature,
            top_p=setting.top_p,
            max_tokens=setting.max_tokens,
            seed=number,
        )
        found = self._run(work)
        return Sampled(
            found["sampling_s"], found["scoring_s"], len(found["samples"]), found["tokens"]
        )

    def score(self, rows: Sequence[SampleRow]) -> tuple[list[list[float]], list[float]]:
        """Return rewards and scores of a job's samples."""
        pairs = [(row.prompt[-1]["content"], row.completion) for row in rows]
        found = self._run(Work(pairs=pairs, candidates=self._setting.candidates))
        return found["rewards"], found["scores"]

    def _run(self, work: Work) -> dict[str, Any]:
        given, result = self._folder / "work.json", self._folder / "result.json"
        given.write_text(json.dumps(asdict(work)))
        folders = (self._setting.policy, self._setting.reward_model)
        command = [sys.executable, "-m", "benchmarks.peers.plain_rsf"]
        command += [*map(str, map(resolve_source, folders)), str(given), str(result)]
        subprocess.run(command, check=True)
        return json.loads(result.read_text())


def _turns(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def angles_of(rule: ConditioningRule, count: int) -> list[float]:
    """Return even angles over the cone that a policy was trained in."""
    if count == 1:
        return [0.0]
    return [rule.cone_deg * (2 * place / (count - 1) - 1) for place in range(count)]


class JobRounds:
    """A server's jobs, one a round, each ended when its samples are selected.

    Args:
        setting: What is drawn.
        rule: How the policy reads a direction.
        server: Runs the jobs.
    """

    def __init__(self, setting: SpeedSetting, rule: ConditioningRule, server: JobServer) -> None:
        self._setting = setting
        self._rule = rule
        self._server = server

    def draw(self, number: int) -> Sampled:
        """Draw and score a round."""
        job = self._sampled(number, self._setting.num_prompts)
        (found,) = (one for one in job.progress.history if one.iteration == 1)
        return Sampled(
            found.seconds["sampling"],
            found.seconds.get("scoring", 0.0),
            found.sampled,
            found.sampled_tokens,
        )

    def rows(self, number: int, count: int) -> list[SampleRow]:
        """Return the samples of a round of so many prompts."""
        job = self._sampled(number, count)
        return read_samples(self._server.folder(job.id) / "iteration-001" / "samples.parquet")

    def _sampled(self, number: int, count: int) -> Job:
        setting, rule = self._setting, self._rule
        angles = angles_of(rule, setting.directions)
        job = self._server.create(
            setting.prompts(number, count),
            seed=number - CHECK,
            iterations=1,
            prompts_per_iteration=count,
            candidates_per_prompt=setting.candidates,
            directions=[dict(rule.at_angle(angle).components) for angle in angles],
            temperature=setting.temperature,
            top_p=setting.top_p,
            max_tokens=setting.max_tokens,
            concurrency=setting.concurrency,
            evaluation_prompts=0,
            # Nothing is learned; a job without a selection would fail.
            require_finished=False,
        )
        done = self._server.wait(job.id, lambda job: job.progress.step not in _BEFORE_TRAINING)
        if done.status not in FINAL_STATUSES:
            self._server.cancel(job.id)
        return done


def measure_speed(setting: SpeedSetting, folder: Path, rule: ConditioningRule) -> dict[str, Any]:
    """Return seconds and samples of each way, round by round.

    Raises:
        SystemExit: If the plain script gives other rewards to the same texts.
    """
    server = JobServer(
        folder / "speed",
        policy=setting.policy,
        reward_model=setting.reward_model,
        running=setting.concurrency * setting.candidates,
    )
    try:
        ours = JobRounds(setting, rule, server)
        plain = {
            f"plain script, batches of {batch} x {setting.candidates}": PlainRounds(
                setting, rule, folder, batch=batch
            )
            for batch in setting.plain_batches
        }
        error = _check_equal(ours, next(iter(plain.values())), min(8, setting.num_prompts))
        ways = {OURS: ours.draw, **{name: one.draw for name, one in plain.items()}}
        found: dict[str, list[Sampled]] = {name: [] for name in ways}
        # The check has warmed up the server, and the script warms itself up.
        for number, name in orders(list(ways), rounds=setting.rounds, warm_up=0):
            sampled = ways[name](number)
            print(f"round {number}, {name}: {sampled.seconds:.1f} s", file=sys.stderr)
            found[name].append(sampled)
    finally:
        server.close()
    return _summary(found, error)


def _check_equal(ours: JobRounds, plain: PlainRounds, count: int) -> float:
    rows = ours.rows(CHECK, count)
    rewards, scores = plain.score(rows)
    error = 0.0
    for row, own, score in zip(rows, rewards, scores, strict=True):
        # Rewards are in the order of the heads on both sides.
        pairs = zip([*row.rewards.values(), row.score], [*own, score], strict=True)
        error = max([error, *(abs((a or 0.0) - b) for a, b in pairs)])
    if not error <= TOLERANCE:
        raise SystemExit(f"rewards differ by {error}, so nothing is timed")
    return error


def _summary(found: Mapping[str, Sequence[Sampled]], error: float) -> dict[str, Any]:
    per_sample = {
        name: [one.seconds / one.samples for one in rounds] for name, rounds in found.items()
    }
    return {
        "max_abs_error": error,
        "rounds": {name: [asdict(one) for one in rounds] for name, rounds in found.items()},
        "samples_per_s": {name: 1 / statistics.median(s) for name, s in per_sample.items()},
        "tokens_per_sample": {
            name: sum(one.tokens for one in rounds) / sum(one.samples for one in rounds)
            for name, rounds in found.items()
        },
        "times_as_fast": {
            name: ratio(seconds, per_sample[OURS])
            for name, seconds in per_sample.items()
            if name != OURS
        },
    }


def speed_table(result: Mapping[str, Any], setting: SpeedSetting) -> dict[str, Any]:
    """Return the table of `measure_speed`."""
    rows: list[list[str]] = []
    for name, rounds in result["rounds"].items():
        times = result["times_as_fast"].get(name)
        sampling, scoring = (
            statistics.median(one[key] for one in rounds) for key in ("sampling_s", "scoring_s")
        )
        rows.append(
            [
                name,
                f"{result['samples_per_s'][name]:.1f}",
                f"{sampling:.1f}",
                f"{scoring:.1f}",
                f"{result['tokens_per_sample'][name]:.1f}",
                f"{times['median']:.2f} ({times['low']:.2f} to {times['high']:.2f})"
                if times
                else "",
            ]
        )
    title = (
        f"sampling and scoring, {setting.num_prompts} prompts x {setting.candidates}, up to "
        f"{setting.max_tokens} tokens"
    )
    columns = ["way", "samples/s", "sampling s", "scoring s", "tokens a sample"]
    return table(title, [*columns, "times as fast is steerward"], rows)
