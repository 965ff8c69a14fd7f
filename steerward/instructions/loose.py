"""The variants of a response that IFEval's loose accuracy looks at."""

from __future__ import annotations


def loose_variants(response: str) -> list[str]:
    """Return the eight variants of a response, itself first.

    IFEval (arXiv:2311.07911), section 2.2: with and without every ``*`` of markdown, with and
    without its first line, with and without its last one. A response of one line leaves blank
    variants, which meet nothing.
    """
    lines = response.split("\n")
    shortened = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    variants = [response, *shortened]
    return [*variants, *(variant.replace("*", "") for variant in variants)]
