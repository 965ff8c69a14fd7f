"""Intra-sample rows of MAPL: the response stays, the instructions in the prompt vary.

A pool of instruction functions is drawn from; of each, one instruction that the response meets and
one that it violates. Both prompts of a row get instructions of the same functions in the same
order, so that they differ in what is asked and not in what it is about.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from steerward.instructions import Instruction, conflicts, draw
from steerward.training.align.mapl.rows import IntraRow, Turns, with_instructions

Both = tuple[Instruction, Instruction]
"""What a response meets, and what it violates, of one kind."""


def build_intra(
    prompt: Turns,
    response: str,
    *,
    kinds: Sequence[str],
    sizes: tuple[int, int],
    order: random.Random,
) -> IntraRow | None:
    """Return a row whose response follows the first prompt better, or None if there is none.

    The response meets all of the first prompt's instructions and not all of the second's, or at
    least one of the first's and none of the second's; which of the two is drawn.

    Args:
        prompt: The original one.
        response: Either end of the original pair.
        kinds: To draw from.
        sizes: Least and most instructions in a prompt.
        order: Random numbers.
    """
    found = _of_different_kinds(response, kinds, order.randint(*sizes), order)
    if len(found) < sizes[0]:
        return None
    num = len(found)
    if order.random() < 0.5:
        num_met, num_others_met = num, order.randrange(num)
    else:
        num_met, num_others_met = order.randint(1, num), 0
    first, second = (_side(found, count, order) for count in (num_met, num_others_met))
    return IntraRow(
        prompt_chosen=with_instructions(prompt, first),
        prompt_rejected=with_instructions(prompt, second),
        response=response,
        instructions_chosen=first,
        instructions_rejected=second,
    )


def _of_different_kinds(
    response: str, kinds: Sequence[str], size: int, order: random.Random
) -> list[Both]:
    found: list[Both] = []
    for kind in order.sample(kinds, len(kinds)):
        if len(found) == size:
            break
        met, violated = (draw(kind, response, met=met, order=order) for met in (True, False))
        if met is None or violated is None:
            continue
        both = (met, violated)
        # Either may come to stand beside either.
        if any(conflicts(a, b) for one in found for a, b in product(one, both)):
            continue
        found.append(both)
    return found


def _side(found: Sequence[Both], num_met: int, order: random.Random) -> tuple[Instruction, ...]:
    met = set(order.sample(range(len(found)), num_met))
    return tuple(both[0 if place in met else 1] for place, both in enumerate(found))
