"""Inter-sample rows of MAPL: the pair stays, and instructions that part its ends are added.

Every instruction of a row is met by one end and violated by the other, so that it is known which
way the preference between them should move.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from steerward.instructions import Instruction, conflicts, draw
from steerward.training.align.mapl.rows import InterRow, with_instructions
from steerward.training.align.rows import PairRow

_TRIES = 3


def build_inter(
    pair: PairRow,
    *,
    direction: Literal[1, -1],
    kinds: Sequence[str],
    sizes: tuple[int, int],
    order: random.Random,
) -> InterRow | None:
    """Return a pair with instructions that favour one end, or None if there are too few.

    Args:
        pair: The original one.
        direction: 1 favours the preferred response, -1 the other.
        kinds: To draw from.
        sizes: Least and most instructions.
        order: Random numbers.
    """
    meets, violates = pair.chosen, pair.rejected
    if direction == -1:
        meets, violates = violates, meets
    size = order.randint(*sizes)
    found: list[Instruction] = []
    for kind in order.sample(kinds, len(kinds)):
        if len(found) == size:
            break
        one = parting(kind, meets, violates, order)
        if one is not None and not any(conflicts(one, other) for other in found):
            found.append(one)
    if len(found) < sizes[0]:
        return None
    instructions = tuple(found)
    return InterRow(
        prompt=pair.messages,
        prompt_with=with_instructions(pair.messages, instructions),
        chosen=pair.chosen,
        rejected=pair.rejected,
        direction=direction,
        instructions=instructions,
    )


def parting(kind: str, meets: str, violates: str, order: random.Random) -> Instruction | None:
    """Return an instruction that one response meets and the other violates, or None without one.

    Args:
        kind: Of the instruction.
        meets: The one response.
        violates: The other.
        order: Random numbers.
    """
    for _ in range(_TRIES):
        of_meets = draw(kind, meets, met=True, order=order)
        if of_meets is not None and not of_meets.is_met(violates):
            return of_meets
        of_violates = draw(kind, violates, met=False, order=order)
        if of_violates is not None and of_violates.is_met(meets):
            return of_violates
        if of_meets is None and of_violates is None:
            return None
    return None
