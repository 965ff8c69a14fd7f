"""Batches hold rows of like length, and an epoch holds every row once."""

from __future__ import annotations

import random
from collections import Counter

from steerward.training.batch_order import in_batches_of_like_length


def test_batches_hold_rows_of_like_length_and_every_row_once() -> None:
    order = random.Random(0)
    lengths = [order.randint(1, 100) for _ in range(67)]
    places = in_batches_of_like_length(lengths, batch_size=4, order=random.Random(1))
    assert Counter(places) == Counter(range(67))
    batches = [[lengths[place] for place in places[i : i + 4]] for i in range(0, 64, 4)]
    assert max(max(batch) - min(batch) for batch in batches) < 30
    # And not from short to long: each epoch sees lengths in another order.
    assert [max(batch) for batch in batches] != sorted(max(batch) for batch in batches)


def test_rows_that_fill_no_batch_stand_at_the_end() -> None:
    places = in_batches_of_like_length([5, 1, 3], batch_size=4, order=random.Random(0))
    assert sorted(places) == [0, 1, 2]
