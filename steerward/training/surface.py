"""What can be said of a response without understanding it: a baseline to beat."""

from __future__ import annotations

import math
import re

_REFUSAL = re.compile(
    r"\b(sorry|i can(?:no|')t|i am (?:un)?able|i'm (?:not able|unable)|as an ai|i won't|"
    r"not appropriate|illegal|unethical)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")

NAMES = (
    "log_characters", "log_words", "lines", "paragraphs", "list_items", "code_marks", "digits",
    "questions", "exclamations", "capitals", "mean_word_length", "distinct_words", "refusals",
    "first_person", "second_person", "prompt_words_repeated",
)  # fmt: skip


def surface_features(prompt: str, response: str) -> list[float]:
    """Return 16 numbers about the form of a response, in the order of `NAMES`."""
    words = [word.lower() for word in _WORD.findall(response)]
    count = max(1, len(words))
    characters = max(1, len(response))
    asked = set(_WORD.findall(prompt.lower()))
    return [
        math.log1p(len(response)),
        math.log1p(len(words)),
        math.log1p(response.count("\n")),
        math.log1p(response.count("\n\n")),
        math.log1p(len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s", response, re.MULTILINE))),
        math.log1p(response.count("```")),
        sum(c.isdigit() for c in response) / characters,
        math.log1p(response.count("?")),
        math.log1p(response.count("!")),
        sum(c.isupper() for c in response) / characters,
        sum(map(len, words)) / count,
        len(set(words)) / count,
        math.log1p(len(_REFUSAL.findall(response))),
        sum(word in ("i", "me", "my", "we") for word in words) / count,
        sum(word in ("you", "your") for word in words) / count,
        sum(word in asked for word in words) / count,
    ]
