"""What directions do: the front of two objectives, by each way to steer.

    python -m benchmarks.steering_front [--prompts FILE.jsonl.gz] [--out FILE.json]
        [--plot FILE.png]

Asks a server of its own for completions to held-out prompts, in ten directions from -45 to +45
degrees: by conditioning (`prompt`), by choosing the best of 8 (`best_of`), by choosing among 5
directions nearby (`neighbours`), and without any direction. Rewards are those that the answers
carry; where nothing is chosen, the mean of several answers to each prompt. Intervals are 95 %, by
resampling prompts. Rewards are told in standard deviations from the
mean of the reward model's reference; the hypervolume is the area that a front dominates, from the
worst mean reward of all ways less one standard deviation.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from scipy.stats import spearmanr

from benchmarks.command import main, table
from benchmarks.dialogues import QUESTIONS
from benchmarks.front_plot import draw_front
from benchmarks.served import Process
from steerward.jobs.rsf.statistics import hypervolume

PROMPT, BEST_OF, NEIGHBOURS, UNSTEERED = "prompt", "best_of", "neighbours", "unsteered"
_MODES: Mapping[str, dict[str, Any]] = {
    PROMPT: {"steering": "prompt"},
    BEST_OF: {"steering": "best_of", "best_of": 8},
    NEIGHBOURS: {"steering": "neighbours", "num_neighbours": 5},
}
ANGLES = tuple(range(-45, 46, 10))
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    prompts: str = ""
    """JSON lines with prompt, split and source; default: questions of our own."""
    sources: str = "self_dialogue,just_eval"
    num_prompts: int = 120
    policy: str = "pocket-policy"
    reward_model: str = "pocket"
    max_tokens: int = 128
    samples: int = 4
    """Answers to each prompt where nothing is chosen, whose mean counts: less of chance."""
    clients: int = 32
    seed: int = 0
    plot: str = ""


def held_out_prompts(setting: Setting) -> list[str]:
    """Return the prompts to answer: of the test split, where a file is given."""
    if not setting.prompts:
        return QUESTIONS[: setting.num_prompts]
    with gzip.open(setting.prompts, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    wanted = setting.sources.split(",")
    found = sorted(
        {
            row["prompt"]
            for row in rows
            if row["split"] == "test" and row["source"] in wanted and len(row["prompt"]) <= 300
        }
    )
    random.Random(setting.seed).shuffle(found)
    return found[: setting.num_prompts]


def run(setting: Setting, _: Path) -> dict[str, Any]:
    """Return means of each way and direction, with intervals, and what they show."""
    prompts = held_out_prompts(setting)
    command = [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu"]
    command += ["--policy", setting.policy, "--reward-model", setting.reward_model]
    command += ["--max-running-completions", "64", "--max-waiting-completions", "4096"]
    process = Process(command, variables={})
    try:
        model, objectives, scale = _served(process.url)
        found = asyncio.run(_measure(setting, process.url, model, prompts))
    finally:
        process.stop()
    return summarise(found, objectives, scale, setting)


def _served(url: str) -> tuple[str, list[str], dict[str, tuple[float, float]]]:
    """Return the policy's name, its objectives, and mean and spread of their rewards."""
    cards = httpx.get(f"{url}/v1/models").json()["data"]
    (policy,) = (card for card in cards if card["kind"] == "policy")
    (reward,) = (card for card in cards if card["kind"] == "reward")
    objectives: list[str] = policy["conditioning"]["objectives"]
    by_name = {one["name"]: one for one in reward["objectives"]}
    scale = {
        name: (by_name[name]["reference_mean"], by_name[name]["reference_std"])
        for name in objectives
    }
    return policy["id"], objectives, scale


async def _measure(
    setting: Setting, url: str, model: str, prompts: Sequence[str]
) -> dict[tuple[str, int | None], list[dict[str, Any]]]:
    """Return the answers' rewards: by way and direction, a prompt each."""
    free = asyncio.Semaphore(setting.clients)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def ask(prompt: str, seed: int, fields: dict[str, Any]) -> dict[str, Any]:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_completion_tokens": setting.max_tokens,
                "seed": seed,
                **fields,
            }
            async with free:
                response = await client.post("/v1/chat/completions", json=body)
            if response.status_code != 200:
                raise RuntimeError(response.text)
            return _mean_answer(prompt, response.json()["choices"])

        async def all_of(fields: dict[str, Any], offset: int) -> list[dict[str, Any]]:
            asked = (ask(prompt, offset + i, fields) for i, prompt in enumerate(prompts))
            return list(await asyncio.gather(*asked))

        found: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
        found[UNSTEERED, None] = await all_of({"n": setting.samples}, setting.seed)
        for name, fields in _MODES.items():
            several = {"n": setting.samples} if name == PROMPT else {}
            for angle in ANGLES:
                # Every way draws with the same seeds, which makes their differences smaller.
                asked = {**fields, **several, "angle": angle}
                found[name, angle] = await all_of(asked, setting.seed)
                print(f"{name} at {angle} degrees", file=sys.stderr)
    return found


def _mean_answer(prompt: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean rewards and length of the answers to a prompt, and the first of them."""
    texts = [choice["message"]["content"] for choice in choices]
    rewards = [choice["reward"] for choice in choices]
    scores = [one["direction_score"] for one in rewards if one["direction_score"] is not None]
    return {
        "prompt": prompt,
        "text": texts[0],
        "characters": float(np.mean([len(text) for text in texts])),
        "rewards": {
            name: float(np.mean([one["rewards"][name] for one in rewards]))
            for name in rewards[0]["rewards"]
        },
        "direction_score": float(np.mean(scores)) if scores else None,
    }


def summarise(
    found: Mapping[tuple[str, int | None], Sequence[Mapping[str, Any]]],
    objectives: Sequence[str],
    scale: Mapping[str, tuple[float, float]],
    setting: Setting,
) -> dict[str, Any]:
    """Return points with intervals, correlations, hypervolumes and comparisons."""
    numbers = np.random.default_rng(setting.seed)
    count = len(found[UNSTEERED, None])
    resamples = numbers.integers(0, count, (_RESAMPLES, count))
    standardised = {
        key: np.array([[_z(one, name, scale) for name in objectives] for one in answers])
        for key, answers in found.items()
    }
    points = [_point(key, found[key], standardised[key], objectives, resamples) for key in found]
    if setting.plot:
        draw_front(points, objectives, Path(setting.plot))
    means = {key: values.mean(axis=0) for key, values in standardised.items()}
    reference = np.min(list(means.values()), axis=0) - 1.0
    volumes = {
        name: hypervolume([m for (way, _), m in means.items() if way == name], reference)
        for name in (*_MODES, UNSTEERED)
    }
    shown = {
        "points": points,
        "rank_correlation": _correlations(means),
        "hypervolume": volumes,
        "reference_point": dict(zip(objectives, reference.tolist(), strict=True)),
        "best_of_less_prompt": _differences(found, resamples),
        "examples": _examples(found),
    }
    return {**shown, "num_prompts": count, "tables": tables_of(shown)}


def _z(answer: Mapping[str, Any], name: str, scale: Mapping[str, tuple[float, float]]) -> float:
    mean, std = scale[name]
    return (answer["rewards"][name] - mean) / std


def _point(
    key: tuple[str, int | None],
    answers: Sequence[Mapping[str, Any]],
    values: Any,
    objectives: Sequence[str],
    resamples: Any,
) -> dict[str, Any]:
    way, angle = key
    drawn = values[resamples].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        "way": way,
        "angle": angle,
        "rewards": {
            name: {"mean": float(values[:, i].mean()), "low": float(low[i]), "high": float(high[i])}
            for i, name in enumerate(objectives)
        },
        "characters": float(np.mean([one["characters"] for one in answers])),
    }


def _correlations(means: Mapping[tuple[str, int | None], Any]) -> dict[str, float]:
    """Return the rank correlation of the second objective's reward with its weight, by way."""
    found: dict[str, float] = {}
    for way in _MODES:
        rewards = [means[way, angle][1] for angle in ANGLES]
        weights = np.sin(np.radians(ANGLES))
        found[way] = float(spearmanr(weights, rewards).statistic)  # pyright: ignore
    return found


def _differences(
    found: Mapping[tuple[str, int | None], Sequence[Mapping[str, Any]]], resamples: Any
) -> list[dict[str, float]]:
    """Return by how much the best of 8 beat samples on the direction score, by direction."""
    rows: list[dict[str, float]] = []
    for angle in ANGLES:
        gain = np.array(
            [
                best["direction_score"] - one["direction_score"]
                for best, one in zip(found[BEST_OF, angle], found[PROMPT, angle], strict=True)
            ]
        )
        low, high = np.quantile(gain[resamples].mean(axis=1), [0.025, 0.975])
        rows.append(
            {"angle": angle, "mean": float(gain.mean()), "low": float(low), "high": float(high)}
        )
    return rows


def _examples(
    found: Mapping[tuple[str, int | None], Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return what was answered to the first prompts at both ends."""
    return [
        {
            "angle": angle,
            "prompts": [one["prompt"] for one in found[PROMPT, angle][:4]],
            "texts": [one["text"] for one in found[PROMPT, angle][:4]],
        }
        for angle in (ANGLES[0], ANGLES[-1])
    ]


def tables_of(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a result: the front, what each way comes to, what choosing brings."""
    first, second = objectives = list(shown["reference_point"])
    rows = [
        [
            point["way"],
            "" if point["angle"] is None else f"{point['angle']:+d}",
            *(_with_interval(point["rewards"][name]) for name in objectives),
            f"{point['characters']:.0f}",
        ]
        for point in shown["points"]
    ]
    front = table(
        "mean reward, in standard deviations, with 95 % intervals",
        ["way", "degrees", first, second, "characters"],
        rows,
    )
    gains = {row["angle"]: row for row in shown["best_of_less_prompt"]}
    summary = table(
        "by way",
        ["way", f"rank correlation of {second} and its weight", "hypervolume"],
        [
            [
                way,
                f"{shown['rank_correlation'][way]:.3f}" if way in shown["rank_correlation"] else "",
                f"{volume:.2f}",
            ]
            for way, volume in shown["hypervolume"].items()
        ],
    )
    gain = table(
        "direction score of best_of less that of prompt",
        ["degrees", "difference"],
        [[f"{angle:+d}", _with_interval(row)] for angle, row in gains.items()],
    )
    return [front, summary, gain]


def _with_interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:+.2f} ({value['low']:+.2f}..{value['high']:+.2f})"


if __name__ == "__main__":
    main(Setting, run)
