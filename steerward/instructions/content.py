"""Instructions on parts that a response holds: placeholders, a postscript, two answers, the prompt.

``detectable_content:`` and ``combination:`` of the published registry.
"""

from __future__ import annotations

import re

from steerward.instructions.comparison import AT_LEAST, counted, limit_near
from steerward.instructions.kind import Arguments, Kind, Wish, nothing, text, whole_number

_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}
_SIX_STARS = "******"


def placeholders(response: str) -> int:
    """Return the number of parts in square brackets that lie within a line."""
    count = 0
    # By line and not by one pattern, which takes a square of a line of brackets.
    for line in response.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
            start = line.find("[", end)
    return count


def _draw_placeholders(response: str, wish: Wish) -> Arguments | None:
    limit = limit_near(placeholders(response), AT_LEAST, wish=wish)
    return None if limit is None else {"num_placeholders": limit}


def _say_placeholders(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_placeholders"], "placeholder")
    return (
        f"The response must contain at least {amount} in square brackets, such as [address].",
        f"Use at least {amount}, written like [name].",
    )


NUMBER_PLACEHOLDERS = Kind(
    id="detectable_content:number_placeholders",
    rules={"num_placeholders": whole_number()},
    is_met=lambda response, given: placeholders(response) >= given["num_placeholders"],
    phrasings=_say_placeholders,
    propose=_draw_placeholders,
)


def has_postscript(response: str, marker: str) -> bool:
    """Return whether a postscript's marker stands in the response, in any case.

    Of "P.S." and "P.P.S" the spelling may vary by a space, as published; another marker is read
    as plain text, where the published checker reads a regular expression.
    """
    pattern = _POSTSCRIPTS.get(marker)
    if pattern is None:
        return marker.lower() in response.lower()
    return pattern.search(response.lower()) is not None


POSTSCRIPT = Kind(
    id="detectable_content:postscript",
    rules={"postscript_marker": text},
    is_met=lambda response, given: has_postscript(response, given["postscript_marker"]),
    phrasings=lambda given: (
        f"At the end of your response, add a postscript that starts with "
        f"{given['postscript_marker']}",
        f"Finish with a postscript, introduced by {given['postscript_marker']}",
    ),
    propose=lambda _, wish: {"postscript_marker": wish.order.choice(list(_POSTSCRIPTS))},
)


def is_two_responses(response: str) -> bool:
    """Return whether six asterisks part a response into two that differ."""
    parts = [part.strip() for part in response.split(_SIX_STARS)]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


TWO_RESPONSES = Kind(
    id="combination:two_responses",
    rules={},
    is_met=lambda response, _: is_two_responses(response),
    phrasings=lambda _: (
        f"Give two different responses, separated by 6 asterisks and by nothing else: {_SIX_STARS}",
        f"Answer in two different ways. Put {_SIX_STARS} between the two answers only.",
    ),
    propose=nothing,
)


def _no_prompt(response: str, wish: Wish) -> None:
    """Propose nothing: what the prompt is cannot be told from a response."""


REPEAT_PROMPT = Kind(
    id="combination:repeat_prompt",
    rules={"prompt_to_repeat": text},
    is_met=lambda response, given: (
        response.strip().lower().startswith(given["prompt_to_repeat"].lower())
    ),
    phrasings=lambda given: (
        "First repeat the following request word for word, without any change and with nothing "
        f"before it; then give your answer. The request: {given['prompt_to_repeat']}",
    ),
    propose=_no_prompt,
)

KINDS = (NUMBER_PLACEHOLDERS, POSTSCRIPT, TWO_RESPONSES, REPEAT_PROMPT)
