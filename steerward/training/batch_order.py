"""The order of an epoch in which rows of a batch are about as long, so that little is padded."""

from __future__ import annotations

import random
from collections.abc import Sequence

# Batches whose rows are sorted by length together: few enough that each still holds all kinds.
_SORTED_BATCHES = 16


def in_batches_of_like_length(
    lengths: Sequence[int], *, batch_size: int, order: random.Random
) -> list[int]:
    """Return the places of rows in another order, in which those of a batch have like lengths.

    Rows that do not fill a batch stand at the end.

    Args:
        lengths: Of the rows, in tokens.
        batch_size: Rows of a batch.
        order: Draws which batches hold what, and their order.
    """
    shuffled = order.sample(range(len(lengths)), len(lengths))
    whole = len(shuffled) - len(shuffled) % batch_size
    batches: list[list[int]] = []
    for begin in range(0, whole, _SORTED_BATCHES * batch_size):
        part = shuffled[begin : min(whole, begin + _SORTED_BATCHES * batch_size)]
        part.sort(key=lengths.__getitem__)
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    order.shuffle(batches)
    return [place for batch in batches for place in batch] + shuffled[whole:]
