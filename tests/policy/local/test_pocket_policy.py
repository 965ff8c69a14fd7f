"""The policy that ships: it loads, it is small, its report is of these weights, and it steers."""

from __future__ import annotations

import asyncio
import json
import statistics

from steerward.models.source import POCKET_POLICY, resolve_source, weight_version
from steerward.policy.generation import GenerationRequest, Prompt, Sampling
from steerward.policy.local.checkpoint import load_policy
from tests.policy.conftest import ask, make_policy, started, texts

_SMALL_TALK = [
    "What kind of music do you like?",
    "Have you seen any good films lately?",
    "Do you play any sports?",
    "Did you watch the game last night?",
    "Who is your favourite actor?",
    "What did you do at the weekend?",
    "Do you like to cook?",
    "Have you read any good books?",
]

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
        assert volumes[way] > volumes["unsteered"]
    correlation = front["rank_correlation"]
    assert min(correlation["best_of"], correlation["neighbours"]) >= 0.9
    # Conditioning alone, too.
    assert correlation["prompt"] >= 0.9
    assert all(row["mean"] >= 0 for row in front["best_of_less_prompt"])


def test_answers_grow_with_the_weight_of_verbosity() -> None:
    checkpoint = load_policy(POCKET_POLICY, device="cpu")
    rule = checkpoint.rule
    assert rule is not None

    async def run() -> list[float]:
        policy = await started(
            make_policy(checkpoint, name=POCKET_POLICY, max_running=32, max_waiting=128)
        )
        lengths: list[float] = []
        for angle in (-45.0, 25.0):
            system = rule.condition(rule.at_angle(angle)).system
            prompts = [
                Prompt(
                    ({"role": "system", "content": system}, {"role": "user", "content": question})
                )
                for question in _SMALL_TALK
                for _ in range(8)
            ]
            sampling = Sampling(max_tokens=120, seed=0, temperature=1.0)
            request = GenerationRequest(prompts, sampling, ask().deadline)
            found = await texts(policy, request)
            lengths.append(statistics.mean(map(len, found)))
        policy.close()
        return lengths

    short, long = asyncio.run(run())
    assert long > short
