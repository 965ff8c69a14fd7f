"""Selection over a whole iteration: from samples to what became of them, and to a training set."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from steerward.jobs.disk import write_whole
from steerward.jobs.rsf.filters import Filters
from steerward.jobs.rsf.samples import SampleRow
from steerward.jobs.rsf.selection import (
    OVER_QUOTA,
    Candidate,
    Moments,
    Vector,
    Winner,
    over_quota,
    select,
)
from steerward.protocol.conditioning import ConditioningRule, conditioned_turns
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import RsfSettings


def select_samples(
    rows: Sequence[SampleRow],
    directions: Sequence[Vector],
    reference: Moments | None,
    settings: RsfSettings,
) -> list[SampleRow]:
    """Return samples with what became of them.

    Args:
        rows: Of one iteration, those of a prompt behind each other.
        directions: Of the iteration, in the reward model's names.
        reference: Moments of the reward model's reference set, if known.
        settings: The job's.
    """
    filters = Filters(settings)
    reasons: list[str] = []
    scores: list[Mapping[int, float]] = []
    winners: list[Winner] = []
    begin = 0
    for group in _by_prompt(rows):
        candidates = [
            Candidate(
                row.direction_index,
                row.completion,
                row.rewards,
                filters.why_not(row.completion, tokens=row.tokens, is_finished=row.is_finished),
            )
            for row in group
        ]
        drawn = {row.direction_index: directions[row.direction_index] for row in group}
        found = select(candidates, drawn, reference=reference, settings=settings)
        reasons += found.reasons
        scores += found.scores
        winners += [
            dataclasses.replace(winner, candidate=begin + winner.candidate)
            for winner in found.winners
        ]
        begin += len(group)
    dropped = over_quota(winners, settings.max_per_direction)
    chosen: dict[int, list[int]] = {}
    for place, winner in enumerate(winners):
        chosen.setdefault(winner.candidate, [])
        if place not in dropped:
            chosen[winner.candidate].append(winner.direction)
    return [
        dataclasses.replace(
            row,
            pool_scores=dict(scores[place]),
            selected_for=tuple(chosen.get(place, ())),
            reason=OVER_QUOTA if place in chosen and not chosen[place] else reason,
        )
        for place, (row, reason) in enumerate(zip(rows, reasons, strict=True))
    ]


def check_one_origin(rows: Sequence[SampleRow]) -> None:
    """Refuse samples of one iteration that were drawn or scored with different weights.

    Raises:
        InvalidRequest: If they were; the versions are named.
    """
    for what, versions in (
        ("drawn by different policies", {row.policy_weight_version for row in rows}),
        ("scored by different reward models", {row.reward_weight_version for row in rows}),
    ):
        if len(versions) > 1:
            raise InvalidRequest(
                f"the samples of iteration {rows[0].iteration} were {what}, versions "
                f"{', '.join(sorted(versions))}, and cannot be compared: weights were exchanged "
                "while the job ran or was paused; create a new job",
                param="model",
            )


def mean_rewards(rows: Sequence[SampleRow], names: Sequence[str]) -> dict[str, float]:
    """Return the mean reward of samples by objective."""
    if not rows:
        return {}
    return {name: sum(row.rewards[name] for row in rows) / len(rows) for name in names}


def write_training_set(
    path: Path,
    rows: Sequence[SampleRow],
    *,
    rule: ConditioningRule,
    directions: Sequence[PreferenceDirection],
    sft: Sequence[Sequence[Mapping[str, str]]],
    sft_share: float,
    seed: str,
) -> None:
    """Write the conversations to fine-tune on: selected samples, with others mixed in.

    Raises:
        InvalidRequest: If there is nothing to fine-tune on.
    """
    examples = [
        {
            "messages": [
                *conditioned_turns(row.prompt, rule.condition(directions[direction]).system),
                {"role": "assistant", "content": row.completion},
            ]
        }
        for row in rows
        for direction in row.selected_for
    ]
    if not rows:
        raise InvalidRequest(
            "no prompt could be sampled and scored; the job's events tell why",
            param="training_file",
        )
    if not examples:
        counts = Counter(row.reason for row in rows).most_common()
        raise InvalidRequest(
            "no completion was selected: "
            + ", ".join(f"{count:,} {reason}" for reason, count in counts)
            + "; loosen the selection or the filters, or sample at a higher temperature",
            param="method.rsf.selection",
        )
    order = random.Random(seed)
    if sft:
        num = round(len(examples) * sft_share / (1.0 - sft_share))
        examples += [
            {"messages": [dict(turn) for turn in conversation]}
            for conversation in order.choices(sft, k=num)
        ]
    order.shuffle(examples)

    def write(building: Path) -> None:
        with building.open("w", encoding="utf-8") as file:
            for example in examples:
                file.write(json.dumps(example, ensure_ascii=False) + "\n")

    write_whole(path, write)


def _by_prompt(rows: Sequence[SampleRow]) -> list[list[SampleRow]]:
    groups: list[list[SampleRow]] = []
    for row in rows:
        if not groups or groups[-1][0].number != row.number:
            groups.append([])
        groups[-1].append(row)
    return groups
