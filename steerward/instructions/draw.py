"""Instructions drawn for a response, which it meets or does not, checked before they are given.

The generators g_i(y, True) and g_i(y, False) of MAPL (arXiv:2505.12845), one for each kind.
"""

from __future__ import annotations

import random

from steerward.instructions.instruction import Instruction
from steerward.instructions.kind import Wish
from steerward.instructions.registry import kind_named
from steerward.protocol.errors import InvalidRequest

_MOST_TRIES = 8
"""How often a kind may propose before it is said to have nothing. Ours."""


def draw(kind: str, response: str, *, met: bool, order: random.Random) -> Instruction | None:
    """Return an instruction of a kind that a response meets, or one that it does not.

    Arguments lie near what the response itself measures, so that the instruction is not met, or
    missed, by nearly any response. The same state of `order` gives the same instruction.

    Args:
        kind: Id of the kind, one of `KINDS`.
        response: What the instruction is drawn for.
        met: Whether the response should meet it.
        order: Decides between arguments that would do, and between phrasings; moves on.

    Returns:
        The instruction, checked; None if this kind has none to say of this response, as of an
        instruction without arguments that the response happens to meet, or of
        ``combination:repeat_prompt``, which would need the prompt.

    Raises:
        InvalidRequest: If there is no such kind.
    """
    found = kind_named(kind)
    # A blank response meets nothing, whatever the arguments: no instruction says more of it.
    if not response.strip():
        return None
    for _ in range(_MOST_TRIES):
        arguments = found.propose(response, Wish(met, order))
        if arguments is None:
            continue
        try:
            drawn = Instruction(kind, arguments, phrasing=order.randrange(1 << 16))
        except InvalidRequest:
            # Of a response without words, say, a phrase that would be blank.
            continue
        if drawn.is_met(response) == met:
            return drawn
    return None
