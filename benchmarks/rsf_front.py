"""What a fine-tuning job did to the front: after each iteration, on prompts it did not learn.

    python -m benchmarks.rsf_front --job FOLDER [--prompts FILE.jsonl.gz] [--out FILE.json]
        [--plot FILE.png]

Reads the answers that a job was measured by; with --prompts it asks for new ones, to held-out
prompts that no iteration was chosen by. Intervals are 95 %, by resampling prompts; differences
are paired by prompt. Rewards are told in standard deviations of the reward model's reference; the
hypervolume is the area that a front dominates, from the worst mean reward of all iterations less
one standard deviation. Beside it, what nothing was selected by: the reward model's own gated
score, how near an answer is to its prompt for a sentence encoder, length, repeats, and the share
of pairs of words that differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import steering_front
from benchmarks.command import main
from benchmarks.rsf_answers import Answer, Asking, kept_answers, new_answers, paired, rule_of
from benchmarks.rsf_front_plot import draw_fronts
from benchmarks.rsf_front_tables import tables_of
from benchmarks.rsf_judges import SentenceEncoder
from steerward.jobs.rsf.statistics import (
    difference_interval,
    distinct_share,
    hypervolume,
    mean_interval,
    repetition,
)
from steerward.models.source import resolve_source

_RESAMPLES = 2000
_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    job: str = ""
    """Folder of a job: jobs/ftjob-... below the server's state folder."""
    prompts: str = ""
    """JSON lines with prompt, split and source, to ask anew; default: the job's own answers."""
    num_prompts: int = 120
    """Of --prompts."""
    angles: str = ",".join(map(str, steering_front.ANGLES))
    """Directions of --prompts, in degrees."""
    policy: str = "pocket-policy"
    """That the job began with."""
    reward_model: str = "pocket"
    temperature: float = 0.7
    max_tokens: int = 128
    clients: int = 32
    seed: int = 0
    plot: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """The two objectives of the front, and mean and spread of their rewards."""

    objectives: tuple[str, str]
    mean: tuple[float, float]
    std: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One iteration in numbers. P prompts, V directions, 2 objectives."""

    scores_PV: Any
    rewards_PV2: Any
    judges: Mapping[str, Any]
    """By name, (P, V) each."""
    distinct: float


def run(setting: Setting, _: Path) -> dict[str, Any]:
    """Return each iteration with intervals, and what the last changed.

    Raises:
        SystemExit: If there is no job with answers.
    """
    rule, job = rule_of(setting.policy), Path(setting.job)
    if not setting.job or not job.is_dir():
        raise SystemExit(f"there is no folder {setting.job!r}; give a job's with --job FOLDER")
    if setting.prompts:
        held_out = steering_front.Setting(
            prompts=setting.prompts, num_prompts=setting.num_prompts, seed=setting.seed
        )
        asking = Asking(
            setting.policy,
            setting.reward_model,
            [float(angle) for angle in setting.angles.split(",")],
            setting.temperature,
            setting.max_tokens,
            setting.clients,
            setting.seed,
        )
        found = new_answers(job, steering_front.held_out_prompts(held_out), asking)
    else:
        found = kept_answers(job, rule)
    first, second = (rule.reward_names.get(name, name) for name in rule.objectives)
    angles, answers = paired(found)
    return summarise(answers, angles, scale_of(setting.reward_model, (first, second)), setting)


def scale_of(reward_model: str, objectives: tuple[str, str]) -> Scale:
    """Return the scale of two objectives over the reward model's reference."""
    config = json.loads((resolve_source(reward_model) / "config.json").read_text())
    known = {one["name"]: one for one in config["steerward"]["objectives"]}
    first, second = (known[name] for name in objectives)
    return Scale(
        objectives,
        (first["reference_mean"], second["reference_mean"]),
        (first["reference_std"], second["reference_std"]),
    )


def summarise(
    answers: Mapping[int, Sequence[Sequence[Answer]]],
    angles: Sequence[float],
    scale: Scale,
    setting: Setting,
) -> dict[str, Any]:
    """Return points with intervals, what has risen, and the judges.

    Args:
        answers: By iteration, a row of answers for each prompt, as `paired` gives them.
        angles: Of the directions, in their order.
        scale: Of the rewards.
        setting: Says where a picture goes.
    """
    encoder = SentenceEncoder()
    measured = {number: measure(rows, scale, encoder) for number, rows in answers.items()}
    start = measured[min(measured)]
    means = {number: one.rewards_PV2.mean(axis=0) for number, one in measured.items()}
    reference = np.min([mean_V2.min(axis=0) for mean_V2 in means.values()], axis=0) - 1.0
    volumes = _volumes(measured, reference, seed=setting.seed)
    iterations = [
        {
            "iteration": number,
            **_iteration(one, start, angles, scale.objectives),
            "hypervolume": _of_resampled(volumes[number]),
            "hypervolume_gain": _of_resampled(volumes[number] - volumes[min(measured)]),
        }
        for number, one in measured.items()
    ]
    shown = {
        "num_prompts": len(start.scores_PV),
        "angles": list(angles),
        "objectives": list(scale.objectives),
        "reference_point": reference.tolist(),
        "iterations": iterations,
        "risen_directions": sum(
            point["gain"]["low"] > 0 for point in iterations[-1]["points"] if len(iterations) > 1
        ),
        "examples": _examples(answers, angles),
    }
    if setting.plot:
        draw_fronts(shown, Path(setting.plot))
    return {**shown, "tables": tables_of(shown)}


def measure(rows: Sequence[Sequence[Answer]], scale: Scale, encoder: SentenceEncoder) -> Measured:
    """Return the numbers of one iteration."""
    flat = [one for row in rows for one in row]
    shape = len(rows), len(rows[0])
    rewards_PV2 = np.array([[one.rewards[name] for name in scale.objectives] for one in flat])
    cosines = encoder.cosines([one.prompt for one in flat], [one.text for one in flat])
    judges = {
        "cosine with the prompt": cosines,
        "characters": [len(one.text) for one in flat],
        "repetition": [repetition(one.text) for one in flat],
    }
    own = [one.score for one in flat if one.score is not None]
    if len(own) == len(flat):
        judges = {"own score": own, **judges}
    return Measured(
        scores_PV=np.array([one.direction_score for one in flat]).reshape(shape),
        rewards_PV2=((rewards_PV2 - scale.mean) / scale.std).reshape(*shape, 2),
        judges={name: np.array(values).reshape(shape) for name, values in judges.items()},
        distinct=distinct_share([one.text for one in flat], 2),
    )


def _iteration(
    one: Measured, start: Measured, angles: Sequence[float], objectives: tuple[str, str]
) -> dict[str, Any]:
    return {
        "direction_score": asdict(mean_interval(one.scores_PV)),
        "gain": asdict(difference_interval(one.scores_PV, start.scores_PV)),
        "judges": {
            name: {
                "value": asdict(mean_interval(values_PV)),
                "gain": asdict(difference_interval(values_PV, start.judges[name])),
            }
            for name, values_PV in one.judges.items()
        },
        "distinct_pairs": one.distinct,
        "points": [
            {
                "angle": angle,
                "direction_score": asdict(mean_interval(one.scores_PV[:, v])),
                "gain": asdict(difference_interval(one.scores_PV[:, v], start.scores_PV[:, v])),
                "rewards": {
                    name: asdict(mean_interval(one.rewards_PV2[:, v, i]))
                    for i, name in enumerate(objectives)
                },
            }
            for v, angle in enumerate(angles)
        ],
    }


def _volumes(measured: Mapping[int, Measured], reference: Any, *, seed: int) -> dict[int, Any]:
    """Return the hypervolume of each iteration: of all prompts, then of resampled ones."""
    numbers = np.random.default_rng(seed)
    count = len(next(iter(measured.values())).scores_PV)
    # The same for all, so that differences of iterations are paired.
    draws = [np.arange(count), *numbers.integers(0, count, (_RESAMPLES, count))]
    return {
        number: np.array(
            [hypervolume(one.rewards_PV2[draw].mean(axis=0).tolist(), reference) for draw in draws]
        )
        for number, one in measured.items()
    }


def _of_resampled(values: Any) -> dict[str, float]:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"mean": float(values[0]), "low": float(low), "high": float(high)}


def _examples(
    answers: Mapping[int, Sequence[Sequence[Answer]]], angles: Sequence[float]
) -> list[dict[str, Any]]:
    """Return what was answered to the first prompts at both ends, before and after."""
    return [
        {
            "iteration": number,
            "angle": angles[place],
            "prompts": [row[place].prompt for row in answers[number][:_EXAMPLES]],
            "texts": [row[place].text for row in answers[number][:_EXAMPLES]],
        }
        for number in sorted({min(answers), max(answers)})
        for place in (0, len(angles) - 1)
    ]


if __name__ == "__main__":
    main(Setting, run)
