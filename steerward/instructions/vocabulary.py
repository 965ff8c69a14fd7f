"""Words and phrases that drawn instructions ask for where the response gives none."""

from __future__ import annotations

import random

WORDS: tuple[str, ...] = (
    *("answer", "balance", "bridge", "butter", "candle", "careful", "castle", "change"),
    *("circle", "climate", "coffee", "colour", "common", "corner", "courage", "danger"),
    *("detail", "dinner", "distant", "effort", "energy", "example", "family", "finally"),
    *("forest", "friend", "future", "garden", "gentle", "harbour", "history", "honest"),
    *("however", "imagine", "island", "journey", "kitchen", "ladder", "language", "letter"),
    *("library", "machine", "measure", "memory", "moment", "morning", "mountain", "nature"),
    *("notice", "number", "orange", "patient", "pattern", "perhaps", "picture", "planet"),
    *("pocket", "practice", "promise", "purpose", "question", "reason", "result", "rhythm"),
    *("river", "second", "shadow", "signal", "silver", "simple", "station", "story"),
    *("summer", "system", "therefore", "ticket", "together", "travel", "valley", "village"),
    *("weather", "window", "winter", "wisdom"),
)
OPENINGS = (
    "To begin with",
    "In my view",
    "The short answer is",
    "Here is what I found",
    "Let us start",
    "As far as I know",
)
ENDINGS = (
    "I hope this helps.",
    "That is all there is to it.",
    "Is there anything else you need?",
    "Thank you for reading.",
    "And that is my answer.",
)
ANSWERS = ("Yes.", "No.", "Maybe.", "I do not know.", "It depends.", "Neither of them.")


def absent_words(response: str, *, most: int, order: random.Random) -> list[str]:
    """Return one to `most` words that are nowhere in the response, not even in a longer word."""
    lowered = response.lower()
    absent = [word for word in WORDS if word not in lowered]
    return order.sample(absent, k=min(len(absent), order.randint(1, most)))
