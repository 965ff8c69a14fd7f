"""The policy that ships: it loads, it is small, its report is of these weights, and it steers."""

from __future__ import annotations

import asyncio
import json
import statistics

from benchmarks.dialogues import QUESTIONS
from steerward.models.source import POCKET_POLICY, resolve_source, weight_version
from steerward.policy.generation import GenerationRequest, Prompt, Sampling
from steerward.policy.local.checkpoint import load_policy
from tests.policy.conftest import ask, make_policy, started, texts

FOLDER = resolve_source(POCKET_POLICY)


def test_it_is_small_and_its_report_is_of_these_weights() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 30e6
    report = json.loads((FOLDER / "report.json").read_text())
    assert report["weight_version"] == weight_version(FOLDER)
    assert f"`{report['weight_version']}`" in (FOLDER / "README.md").read_text()
    assert 2.6e6 < report["parameters"] < 30e6


def test_its_report_shows_that_it_can_be_steered() -> None:
    front = json.loads((FOLDER / "report.json").read_text())["front"]
    assert front["num_prompts"] >= 100
    volumes = front["hypervolume"]
    for way in ("prompt", "best_of", "neighbours"):
        assert front["rank_correlation"][way] >= 0.9
        assert volumes[way] > volumes["unsteered"]
    assert all(row["mean"] >= 0 for row in front["best_of_less_prompt"])


def test_answers_grow_with_the_weight_of_verbosity() -> None:
    checkpoint = load_policy(POCKET_POLICY, device="cpu")
    rule = checkpoint.rule
    assert rule is not None

    async def run() -> list[float]:
        policy = await started(make_policy(checkpoint, name=POCKET_POLICY, max_running=32))
        lengths: list[float] = []
        for angle in (-45.0, 0.0, 45.0):
            system = rule.condition(rule.at_angle(angle)).system
            prompts = [
                Prompt(
                    ({"role": "system", "content": system}, {"role": "user", "content": question})
                )
                for question in QUESTIONS
            ]
            sampling = Sampling(max_tokens=120, seed=0)
            request = GenerationRequest(prompts, sampling, ask().deadline)
            found = await texts(policy, request)
            lengths.append(statistics.mean(map(len, found)))
        policy.close()
        return lengths

    short, middle, long = asyncio.run(run())
    assert short < middle < long
    assert long > 1.5 * short
