"""Policies that are tables: the logits of the next token by the token before it.

Small enough to be written down whole, so that a loss can be followed from its inputs to its value.

Axis legend: N sequences, T tokens after the first of each, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.golden.optimizers.document import Draws, Floats

VOCABULARY = 4

Tokens = NDArray[np.int64]


def log_probabilities(table_VV: Floats) -> Floats:
    """Return log p(next | last) as a table of the same shape: rows are of the last token."""
    return table_VV - np.log(np.exp(table_VV).sum(axis=1, keepdims=True))


def token_log_probabilities(table_VV: Floats, tokens: Tokens) -> Floats:
    """Return log p of each token after the first, (N, T)."""
    return log_probabilities(table_VV)[tokens[:, :-1], tokens[:, 1:]]


def drawn_tokens(draws: Draws, num_sequences: int, length: int) -> Tokens:
    """Return sequences of `length` tokens."""
    return draws.integers(0, VOCABULARY, (num_sequences, length))
