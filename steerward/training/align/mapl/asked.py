"""Held-out prompts with instructions for a policy to answer, and which share of them it follows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from steerward.instructions import Instruction, conflicts, draw
from steerward.protocol.alignment import FOLLOWED
from steerward.training.align.mapl.data import TooFewRows
from steerward.training.align.mapl.rows import with_instructions
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.rows import PairRow, PromptRow
from steerward.training.align.turns import answer_text

COLUMN = "instructions"
"""Column of a prompt's instructions, as judges of instructions read it."""


def asked_prompts(
    pairs: Sequence[PairRow], *, kinds: Sequence[str], sizes: tuple[int, int]
) -> list[PromptRow]:
    """Return the prompts of held-out pairs with instructions, without those that have too few.

    The preferred response meets all instructions of its prompt, so that they can be met together.
    They depend on the pairs, the kinds and the sizes alone: runs of all seeds are measured alike.

    Args:
        pairs: Held out.
        kinds: Of instructions to draw from.
        sizes: Least and most instructions in a prompt.

    Raises:
        TooFewRows: If there are pairs, and all of them have too few.
    """
    found: list[PromptRow] = []
    for place, pair in enumerate(pairs):
        drawn = _drawn(pair.chosen, kinds, sizes[1], random.Random(place))
        if len(drawn) >= sizes[0]:
            columns = {**pair.columns, COLUMN: drawn}
            found.append(PromptRow(with_instructions(pair.messages, drawn), columns))
    if pairs and not found:
        raise TooFewRows(
            f"for none of {len(pairs)} held-out pairs, {sizes[0]} instructions of the "
            f"{len(kinds)} kinds that are held out could be drawn; hold out more kinds, lower "
            "min_instructions, or set evaluation_prompts to 0"
        )
    return found


def followed_column() -> RewardFunction:
    """Return the column of the share of a prompt's instructions that its answer follows."""

    def followed(
        prompts: Sequence[Any],  # noqa: ARG001
        completions: Sequence[Any],
        *,
        instructions: Sequence[Sequence[Instruction]],
        **_: Any,
    ) -> list[float]:
        return [
            _share(answer_text(completion), asked)
            for completion, asked in zip(completions, instructions, strict=True)
        ]

    followed.__name__ = followed.__qualname__ = FOLLOWED
    return followed


def _drawn(
    response: str, kinds: Sequence[str], most: int, order: random.Random
) -> list[Instruction]:
    found: list[Instruction] = []
    for kind in order.sample(kinds, len(kinds)):
        if len(found) == most:
            break
        one = draw(kind, response, met=True, order=order)
        if one is not None and not any(conflicts(one, other) for other in found):
            found.append(one)
    return found


def _share(answer: str, instructions: Sequence[Instruction]) -> float:
    return sum(one.is_met(answer) for one in instructions) / len(instructions)
