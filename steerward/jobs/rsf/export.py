"""Samples as other trainers read them: preference pairs, conversations, and JSON lines.

Rows of one prompt follow each other, as a job writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from steerward.jobs.rsf.samples import SampleRow
from steerward.jobs.rsf.selection import COMPETED
from steerward.protocol.conditioning import ConditioningRule, conditioned_turns
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import DatasetRefused, NonFiniteScore


def sft_rows(rows: Iterable[SampleRow], rule: ConditioningRule) -> Iterator[dict[str, Any]]:
    """Yield what is learned: each winner as a conversation that begins with its direction.

    A completion that won under several directions comes once for each.

    Raises:
        DatasetRefused: If a direction is none that the prompt was sampled under.
    """
    for group in _by_prompt(rows):
        for row in group:
            for index in row.selected_for:
                turns = _conditioned(row, _direction(group, index), rule)
                yield {"messages": [*turns, _answer(row)]}


def dpo_pairs(rows: Iterable[SampleRow], rule: ConditioningRule) -> Iterator[dict[str, Any]]:
    """Yield preference pairs in TRL's conversational format.

    Each winner is preferred to the worst that competed with it; where that is no worse, there is
    no pair.

    Raises:
        DatasetRefused: If a direction is none that the prompt was sampled under.
    """
    for group in _by_prompt(rows):
        for index in dict.fromkeys(index for row in group for index in row.selected_for):
            pool = [row for row in group if index in row.pool_scores and row.reason in COMPETED]
            if not pool:
                continue
            worst = min(pool, key=lambda row: row.pool_scores[index])
            for row in pool:
                is_better = row.pool_scores[index] > worst.pool_scores[index]
                if index in row.selected_for and is_better and row.completion != worst.completion:
                    yield {
                        "prompt": _conditioned(row, _direction(group, index), rule),
                        "chosen": [_answer(row)],
                        "rejected": [_answer(worst)],
                    }


def result_rows(rows: Iterable[SampleRow]) -> Iterator[dict[str, Any]]:
    """Yield every sample as a JSON object, with where it came from."""
    for row in rows:
        yield {
            "number": row.number,
            "prompt": [dict(turn) for turn in row.prompt],
            "direction": dict(row.direction),
            "direction_index": row.direction_index,
            "completion": row.completion,
            "tokens": row.tokens,
            "is_finished": row.is_finished,
            "selected": row.selected,
            "selected_for": list(row.selected_for),
            "reason": row.reason,
            # Keys of JSON objects are texts.
            "pool_scores": {str(index): score for index, score in row.pool_scores.items()},
            "rewards": dict(row.rewards),
            "score": row.score,
            "direction_score": row.direction_score,
            "lineage": {
                "job_id": row.job_id,
                "iteration": row.iteration,
                "policy_weight_version": row.policy_weight_version,
                "reward_model": row.reward_model,
                "reward_weight_version": row.reward_weight_version,
                "prompt_row": row.prompt_row,
                "seed": row.sample_seed,
                "sample": row.sample,
            },
        }


def samples_of(lines: Iterable[str]) -> Iterator[SampleRow]:
    """Yield the samples of a job's result file, as its lines come.

    Raises:
        DatasetRefused: If a line is none that `result_rows` gave.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield _sample(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, NonFiniteScore) as error:
            raise DatasetRefused(
                f"line {number} is no sample of this version's result files "
                f"({type(error).__name__}: {error}); take the file of a job that has ended since"
            ) from error


def _sample(row: Mapping[str, Any]) -> SampleRow:
    lineage = row["lineage"]
    return SampleRow(
        job_id=lineage["job_id"],
        iteration=lineage["iteration"],
        number=row["number"],
        prompt_row=lineage["prompt_row"],
        direction_index=row["direction_index"],
        direction=row["direction"],
        sample=lineage["sample"],
        sample_seed=lineage["seed"],
        prompt=tuple(row["prompt"]),
        completion=row["completion"],
        tokens=row["tokens"],
        is_finished=row["is_finished"],
        rewards=row["rewards"],
        score=row["score"],
        direction_score=row["direction_score"],
        policy_weight_version=lineage["policy_weight_version"],
        reward_model=lineage["reward_model"],
        reward_weight_version=lineage["reward_weight_version"],
        selected_for=tuple(row["selected_for"]),
        reason=row["reason"],
        pool_scores={int(index): score for index, score in row["pool_scores"].items()},
    )


def _by_prompt(rows: Iterable[SampleRow]) -> Iterator[list[SampleRow]]:
    for _, group in groupby(rows, key=lambda row: (row.job_id, row.iteration, row.number)):
        yield list(group)


def _direction(group: Sequence[SampleRow], index: int) -> Mapping[str, float]:
    for row in group:
        if row.direction_index == index:
            return row.direction
    raise DatasetRefused(
        f"prompt {group[0].number} of iteration {group[0].iteration} has a winner for direction "
        f"{index}, and no sample that was drawn for it; the rows of a prompt must follow each other"
    )


def _conditioned(
    row: SampleRow, direction: Mapping[str, float], rule: ConditioningRule
) -> list[dict[str, str]]:
    system = rule.condition(PreferenceDirection(direction)).system
    return [dict(turn) for turn in conditioned_turns(row.prompt, system)]


def _answer(row: SampleRow) -> dict[str, str]:
    return {"role": "assistant", "content": row.completion}
