r"""Reads numbers out of answers in prose and in LaTeX, as those of GSM8K and MATH are written.

Of prose, the last number counts. What is an answer and nothing else is one number or none: with a
second number, a root, a variable, a power or an operator left, none of its numbers is its value.
"""

from __future__ import annotations

import re
from fractions import Fraction

# Python itself reads no longer ones.
MOST_DIGITS = 1000

_NUMBER = re.compile(
    r"""(?P<sign>(?<![A-Za-z0-9_)])[-+−])?       # no sign behind a number: 7-2
        [$€£]?
        (?<![A-Za-z0-9_])(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
        (?P<exponent>[eE][-+]?\d{1,3}(?!\d))?
        (?:\s(?P<part>\d{1,9})(?=\s?/\s?\d))?    # of a mixed number: 1 1/2
        (?:\s?/\s?(?P<divisor>\d+))?
        |(?P<other>√)""",
    re.VERBOSE,
)
# What is not a number though it has digits: a root, or pi, with what stands before it.
_IRRATIONAL = re.compile(
    r"(?:(?<![\d.])[\d.]++\s*+)?+(?:\\sqrt(?:\s*+\[[^\[\]]*+\])?(?:\s*+\{[^{}]*+\}|\s*+\d)?|\\pi\b|[√π])"
)
_SPACING = re.compile(
    r"\\[!,;: ]|\\left(?![a-z])|\\right(?![a-z])|\\displaystyle(?![A-Za-z])|\{,\}"
)
_SIGNS = {"{,}": ",", "\\ ": " "}
_DEGREES = re.compile(r"\^\s*+(?:\{\s*+\\circ\s*+\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*+\{(?P<inside>[^{}]*+)\}")
_EXPONENT = re.compile(r"(?<=[A-Za-z])(?:\^\s*+(?:\{\s*+[-−]?\d++\s*+\}|[-−]?\d)|[²³])")
_FRACTION = re.compile(
    r"\\[dt]?frac\s*+(?:\{\s*+(?P<top>-?[\d,.]++)\s*+\}|(?P<top_digit>\d))\s*+"
    r"(?:\{\s*+(?P<bottom>-?\d++)\s*+\}|(?P<bottom_digit>\d))"
)
_POWER_OF_TEN = re.compile(
    r"(?<!\s)\s*+(?:\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|×)\s*+10\s*+\^\s*+"
    r"(?:\{\s*+(?P<inside>[-−]?\d{1,3})\s*+\}|(?P<digit>\d))"
)
_WORD = re.compile(r"[A-Za-z]{2,}+")
_LATEX_WORD = re.compile(r"\\[A-Za-z]++")
_UNIT_LETTERS = frozenset("mgshlLNJWVAKCFHPcd")
_VARIABLES = frozenset("abcnpqxyz")
_GLUED_UNITS = re.compile(
    r"[kcmdµnM][mglLsNJWVAF]|kW|kHz|Hz|ft|in|yd|mi|oz|lb|pt|pm|am|hr|st|nd|rd|th"
)
_SEVERAL = re.compile(r"[,;]|\b(?:and|or)\b")
# A number's surroundings: words, perhaps joined, and signs that change no value.
_AROUND = re.compile(
    r"(?:[A-Za-z]++(?:[-/·*][A-Za-z]++)*+|[\s.,:;?%°$€£'\"()\[\]/~≈]|-(?=[A-Za-z]{3}))*+"
)


def last_number_of(text: str) -> Fraction | None:
    """Return the last number of prose; None if there is none, or the last is a root or pi."""
    plain = _IRRATIONAL.sub(" √ ", _plain(text))
    found = list(_NUMBER.finditer(plain))
    return _value(found[-1]) if found else None


def only_number(text: str) -> Fraction | None:
    """Return the number that an answer is, units and words apart; None if it is not one."""
    plain = _behind_equals(_plain(text))
    if plain is None or _LATEX_WORD.search(plain):
        return None
    found = list(_NUMBER.finditer(plain))
    if len(found) != 1:
        return None
    before, behind = plain[: found[0].start()], plain[found[0].end() :]
    if any(_AROUND.fullmatch(part) is None for part in (before, behind)):
        return None
    # Units stand behind a number, and what is divided by it is before.
    if "/" in before or before[-1:].isalpha() or _has_variable(before, units=frozenset()):
        return None
    if _has_glued_variable(behind) or _has_variable(behind, units=_UNIT_LETTERS):
        return None
    return _value(found[0])


def is_prose(text: str) -> bool:
    """Return whether a text has two words or more, those of LaTeX apart, or several lines."""
    plain = _LATEX_WORD.sub(" ", _plain(text))
    return "\n" in text.strip() or len(_WORD.findall(plain)) > 1


def _plain(text: str) -> str:
    """Return a text with its LaTeX for fractions, powers of ten, units and spaces written out."""
    plain = _SPACING.sub(lambda found: _SIGNS.get(found[0], ""), text)
    plain = _TEXT.sub(_inside, _DEGREES.sub("°", plain))
    plain = plain.replace("\\%", "%").replace("\\$", "$").replace("\\{", "(").replace("\\}", ")")
    plain = plain.replace("\\approx", "≈").replace("\\quad", " ")
    plain = _FRACTION.sub(_spelled, _EXPONENT.sub("", plain))
    return _POWER_OF_TEN.sub(lambda power: f"e{power['inside'] or power['digit']}", plain)


def _inside(found: re.Match[str]) -> str:
    """Return what stands in a text of LaTeX, of which exponents can be told to be a unit's."""
    return f" {found['inside'].strip()}"


def _spelled(found: re.Match[str]) -> str:
    """Return a fraction as 1/2, behind a space if it is the second part of a mixed number."""
    top, bottom = found["top"] or found["top_digit"], found["bottom"] or found["bottom_digit"]
    sign = "-" if top.startswith("-") != bottom.startswith("-") else ""
    before = found.string[max(found.start() - 1, 0) : found.start()]
    space = " " if before.isdigit() or before == "}" else ""
    return f"{space}{sign}{top.lstrip('-')}/{bottom.lstrip('-')}"


def _behind_equals(plain: str) -> str | None:
    """Return what an equation says the answer is; None if there are several."""
    left, sign, right = plain.rpartition("=")
    if sign and _SEVERAL.search(left):
        return None
    return re.sub(r"(?<=[-−])\s+", "", right.strip())


def _has_variable(words: str, *, units: frozenset[str]) -> bool:
    """Return whether words hold a letter that is neither a unit nor an article."""
    letters = re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])(?!\s[A-Za-z]{2})", words)
    return any(letter not in units for letter in letters)


def _has_glued_variable(behind: str) -> bool:
    """Return whether variables stand right behind a number, such as in 3xy."""
    glued = re.match(r"[A-Za-z]+", behind)
    if glued is None or _GLUED_UNITS.fullmatch(glued[0]):
        return False
    return len(glued[0]) == 2 or (len(glued[0]) == 3 and _VARIABLES.issuperset(glued[0]))


def _value(found: re.Match[str]) -> Fraction | None:
    if found["other"]:
        return None
    number = found["number"].replace(",", "")
    part, divisor = found["part"] or "0", found["divisor"] or "1"
    if len(number) + len(divisor) > MOST_DIGITS or not int(divisor):
        return None
    value = Fraction(number + (found["exponent"] or "").replace("−", "-"))
    value = value + Fraction(int(part), int(divisor)) if found["part"] else value / int(divisor)
    return -value if found["sign"] in ("-", "−") else value
