"""Rows with what a reward model says of their responses, as it would serve it.

Axis legend: N rows, S responses of a row (1 rated, 2 of a pair), K objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from tqdm import tqdm

from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InputTooLong
from steerward.training.data.rows import RowT
from steerward.training.embeddings import answers_of, batches_of
from steerward.training.statistics import Floats


@dataclass(frozen=True, slots=True)
class Scored(Generic[RowT]):
    """Rows with what the model said of their responses."""

    rows: list[RowT]
    rewards_NSK: Floats
    scores_NS: Floats | None
    """The checkpoint's own score; None if it has none."""
    gates_NSK: Floats | None
    """Gates of each response; None without a gate."""
    left_out: int
    """Rows over the model's length limit."""


@dataclass(frozen=True, slots=True)
class _GroupPlace:
    """A group of a row's responses, and which of them it starts with."""

    row: int
    first_answer: int
    group: Group


def score_rows(
    model: RewardModel, rows: Sequence[RowT], *, max_batch_tokens: int, title: str = "scoring"
) -> Scored[RowT]:
    """Score all responses of rows; rows over the length limit are left out and counted."""
    kept: list[RowT] = []
    places: list[_GroupPlace] = []
    for row in rows:
        try:
            conversations = model.encode(row.context, answers_of(row))
        except InputTooLong:
            continue
        first = 0
        for group in group_conversations(conversations):
            places.append(_GroupPlace(len(kept), first, group))
            first += len(group.suffixes)
        kept.append(row)
    num_answers = len(answers_of(kept[0])) if kept else 1
    rewards_NSK = torch.zeros(len(kept), num_answers, len(model.objectives))
    gates_NSK = torch.zeros_like(rewards_NSK)
    scores_NS = torch.zeros(len(kept), num_answers)
    has_scores = False
    with tqdm(total=len(places), desc=title, unit="row", mininterval=1.0) as bar:
        for batch in batches_of([p.group for p in places], max_tokens=max_batch_tokens):
            chosen = [places[i] for i in batch]
            output = model.score([place.group for place in chosen])
            n = [p.row for p in chosen for _ in p.group.suffixes]
            s = [p.first_answer + i for p in chosen for i in range(len(p.group.suffixes))]
            rewards_NSK[n, s] = output.rewards_NK
            if output.scores_N is not None:
                has_scores = True
                scores_NS[n, s] = output.scores_N
            if output.gates is not None:
                gates_NSK[n, s] = output.gates
            bar.update(len(batch))
    return Scored(
        kept,
        rewards_NSK.double().numpy(),
        scores_NS.double().numpy() if has_scores else None,
        None if model.gate is None else gates_NSK.double().numpy(),
        left_out=len(rows) - len(kept),
    )
