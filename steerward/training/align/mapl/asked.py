"""Held-out prompts with instructions for a policy to answer, and which share of them it follows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from steerward.instructions import Instruction, conflicts
from steerward.instructions.comparison import LESS_THAN
from steerward.protocol.mapl import FOLLOWED
from steerward.training.align.mapl.data import TooFewRows
from steerward.training.align.mapl.inter import parting
from steerward.training.align.mapl.rows import with_instructions
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.rows import PairRow, PromptRow
from steerward.training.align.turns import answer_text

COLUMN = "instructions"
"""Column of a prompt's instructions, as judges of instructions read it."""
WORDS_A_TOKEN = 0.7
"""Words that an answer of so many tokens has room for, each; ours."""

# Arguments that say how many words an answer has at least.
_LEAST_WORDS = {
    "length_constraints:number_words": "num_words",
    "steerward:words_about": "num_words",
    "steerward:words_between": "least",
}


def asked_prompts(
    pairs: Sequence[PairRow], *, kinds: Sequence[str], sizes: tuple[int, int], max_tokens: int
) -> list[PromptRow]:
    """Return the prompts of held-out pairs with instructions, without those that have too few.

    The preferred response meets all instructions of its prompt, so that they can be met together,
    and the other one violates each, so that they tell answers apart. Of more words than an answer
    has room for none is asked. They depend on what is given here alone: runs of all seeds are
    measured alike.

    Args:
        pairs: Held out.
        kinds: Of instructions to draw from.
        sizes: Least and most instructions in a prompt.
        max_tokens: Longest answer.

    Raises:
        TooFewRows: If there are pairs, and all of them have too few.
    """
    found: list[PromptRow] = []
    most_words = int(WORDS_A_TOKEN * max_tokens)
    for place, pair in enumerate(pairs):
        order = random.Random(place)
        drawn = _drawn(pair, kinds, most=sizes[1], most_words=most_words, order=order)
        if len(drawn) >= sizes[0]:
            columns = {**pair.columns, COLUMN: drawn}
            found.append(PromptRow(with_instructions(pair.messages, drawn), columns, pair.place))
    if pairs and not found:
        raise TooFewRows(
            f"for none of {len(pairs)} held-out pairs, {sizes[0]} instructions of the "
            f"{len(kinds)} kinds that are held out could be drawn that chosen meets and rejected "
            "violates; hold out more kinds, lower min_instructions, or set evaluation_prompts to 0"
        )
    return found


def asked_kinds(prompts: Sequence[PromptRow]) -> dict[str, int]:
    """Return how many prompts ask for each kind, of those that any does."""
    return dict(sorted(Counter(one.kind for row in prompts for one in row.columns[COLUMN]).items()))


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
    pair: PairRow, kinds: Sequence[str], *, most: int, most_words: int, order: random.Random
) -> list[Instruction]:
    found: list[Instruction] = []
    for kind in order.sample(kinds, len(kinds)):
        if len(found) == most:
            break
        one = parting(kind, pair.chosen, pair.rejected, order)
        if one is None or _least_words(one) > most_words:
            continue
        if not any(conflicts(one, other) for other in found):
            found.append(one)
    return found


def _least_words(asked: Instruction) -> int:
    """Return how many words an answer must have at least, as far as that is asked in words."""
    if asked.arguments.get("relation") == LESS_THAN:
        return 0
    name = _LEAST_WORDS.get(asked.kind)
    return 0 if name is None else asked.arguments[name]


def _share(answer: str, instructions: Sequence[Instruction]) -> float:
    return sum(one.is_met(answer) for one in instructions) / len(instructions)
