"""The tables of the fronts of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.command import table


def tables_of(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of a result of `rsf_front`."""
    iterations = shown["iterations"]
    return [_scores(iterations), _directions(iterations, shown), _judges(iterations)]


def _scores(iterations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return table(
        "by iteration, with 95 % intervals; differences from the start are paired by prompt",
        ["iteration", "direction score", "less the start", "hypervolume", "less the start"],
        [
            [
                _name(one),
                interval(one["direction_score"]),
                interval(one["gain"]) if one["iteration"] else "",
                interval(one["hypervolume"]),
                interval(one["hypervolume_gain"]) if one["iteration"] else "",
            ]
            for one in iterations
        ],
    )


def _directions(
    iterations: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]
) -> dict[str, Any]:
    last = iterations[-1]
    rows = [
        [
            f"{angle:+g}",
            *(interval(one["points"][place]["direction_score"]) for one in iterations),
            interval(last["points"][place]["gain"]) if last["iteration"] else "",
        ]
        for place, angle in enumerate(shown["angles"])
    ]
    title = (
        f"direction score by direction, {shown['num_prompts']} prompts; risen at "
        f"{shown['risen_directions']} of {len(shown['angles'])} with intervals above zero"
    )
    return table(title, ["degrees", *map(_name, iterations), "last less start"], rows)


def _judges(iterations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    judges = list(iterations[0]["judges"])
    rows = [
        [
            _name(one),
            *(interval(one["judges"][name]["value"], digits=_digits(name)) for name in judges),
            f"{one['distinct_pairs']:.3f}",
        ]
        for one in iterations
    ]
    last = iterations[-1]
    if last["iteration"]:
        gains = (
            interval(last["judges"][name]["gain"], digits=_digits(name), sign="+")
            for name in judges
        )
        change = last["distinct_pairs"] - iterations[0]["distinct_pairs"]
        rows.append(["last less start", *gains, f"{change:+.3f}"])
    return table(
        "what nothing was selected by", ["iteration", *judges, "distinct pairs of words"], rows
    )


def interval(value: Mapping[str, float], *, digits: int = 3, sign: str = "") -> str:
    """Return a mean with its interval."""
    mean, low, high = (f"{value[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}..{high})"


def _name(one: Mapping[str, Any]) -> str:
    return str(one["iteration"] or "start")


def _digits(judge: str) -> int:
    return 0 if judge == "characters" else 3
