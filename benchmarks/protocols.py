"""What other pipelines' protocols cost: each against ``/v1/score`` with the same samples.

    python -m benchmarks.protocols [--rounds N] [--out FILE.json]

One server, and callers that each wait for their answer over bare HTTP connections. Bodies are what
the clients of each protocol send: one sample a request, several prompts, or several answers to
one. Before anything is timed, the number that a client reads must be the score of ``/v1/score``.
Texts are short, which is where the protocol weighs most. Every way and round has the same words
in another order, so that nothing is faster for what was kept of others. Then groups of 8 whose
samples arrive one by one, against one request a group.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.measure import interleaved, ratio
from benchmarks.protocols_arrivals import arrivals_table, measure_arrivals
from benchmarks.protocols_callers import Callers, bodies_of, numbers_of, reordered
from benchmarks.protocols_wire import NAME, PROTOCOLS, Protocol, Shape, native
from benchmarks.served import Process
from benchmarks.subjects import TIMEOUT_S
from benchmarks.throughput import TOLERANCE
from benchmarks.workload import Item, groups_of_8, short_singles, workload_of
from steerward.models.source import resolve_source

GOAL = 0.8
"""Least speed of a protocol over that of ``/v1/score``."""

_SHAPES: tuple[Shape, ...] = ("one sample", "a batch", "a group")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    callers: str = "16,64"
    """Numbers of parallel callers."""
    samples: int = 256
    """Candidates of a round, in every way."""
    together: int = 4
    """Candidates of a request that holds several."""
    groups: int = 16
    """Groups of 8 whose samples arrive one by one."""
    reward_model: str = "pocket"


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the speed of every protocol, and what groups cost that arrive one by one.

    Raises:
        SystemExit: If a number is not the score of ``/v1/score``.
    """
    del folder
    counts = [int(count) for count in setting.callers.split(",")]
    process = Process(_command(setting), variables={})
    try:
        with closing(Callers(process.url, count=min(counts))) as callers:
            errors = check(callers, setting)
        loads = {}
        for count in counts:
            with closing(Callers(process.url, count=count)) as callers:
                loads[str(count)] = measure(callers, setting, label=str(count))
        with closing(Callers(process.url, count=max(counts))) as callers:
            arrivals = measure_arrivals(
                callers,
                groups_of_8(setting.groups)(0),
                folder=resolve_source(setting.reward_model),
                rounds=setting.rounds,
            )
    finally:
        process.stop()
    tables = [_table(count, load, errors) for count, load in loads.items()]
    return {
        "max_abs_error": errors,
        "callers": loads,
        "arrivals": arrivals,
        "tables": [*tables, arrivals_table(arrivals, callers=max(counts))],
    }


def _command(setting: Setting) -> list[str]:
    command = [sys.executable, "-m", "steerward", "serve", "--reward-model", setting.reward_model]
    command += ["--name", NAME, "--policy", "none", "--device", "cpu", "--port", "0"]
    return [*command, "--request-timeout-s", str(TIMEOUT_S)]


def requests_of(setting: Setting, shape: Shape, *, seed: str) -> list[list[Item]]:
    """Return the items of each request of a round."""
    size = setting.together
    if shape == "a group":
        count = setting.samples // size
        base = workload_of(count, prompt=(12, 24), candidate=(12, 30), candidates=size)(0)
        return [[item] for item in reordered(base, seed=seed)]
    items = reordered(short_singles(setting.samples)(0), seed=seed)
    step = size if shape == "a batch" else 1
    return [items[i : i + step] for i in range(0, len(items), step)]


def check(callers: Callers, setting: Setting) -> dict[str, float]:
    """Return by how much the numbers of each protocol differ from those of ``/v1/score``.

    Raises:
        SystemExit: If it is more than the tolerance.
    """
    errors: dict[str, float] = {}
    for shape in _SHAPES:
        requests = requests_of(setting, shape, seed="check")
        expected = _numbers(callers, native(shape), requests)
        for protocol in _of_shape(shape):
            found = _numbers(callers, protocol, requests)
            errors[protocol.name] = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    # Not `error > TOLERANCE`, which NaN would pass.
    if not all(error <= TOLERANCE for error in errors.values()):
        raise SystemExit(f"numbers differ from /v1/score, so nothing is timed: {errors}")
    return errors


def _of_shape(shape: Shape) -> list[Protocol]:
    return [protocol for protocol in PROTOCOLS if protocol.shape == shape]


def _numbers(
    callers: Callers, protocol: Protocol, requests: Sequence[Sequence[Item]]
) -> list[float]:
    return numbers_of(protocol, callers.post(protocol.path, bodies_of(protocol, requests)))


def measure(callers: Callers, setting: Setting, *, label: str) -> dict[str, Any]:
    """Return the seconds of every protocol, and of ``/v1/score`` in every shape, round by round."""
    protocols = [one for shape in _SHAPES for one in (native(shape), *_of_shape(shape))]
    # Written before anything is timed: on one machine, that is not the server's time.
    bodies = {
        (protocol.name, number): bodies_of(
            protocol,
            requests_of(setting, protocol.shape, seed=f"{label} {number} {protocol.name}"),
        )
        for protocol in protocols
        for number in range(-1, setting.rounds)
    }

    def post(number: int, protocol: Protocol) -> None:
        callers.post(protocol.path, bodies[protocol.name, number])

    methods = {protocol.name: partial(post, protocol=protocol) for protocol in protocols}
    seconds = interleaved(methods, rounds=setting.rounds)
    return {
        "candidates": setting.samples // setting.together * setting.together,
        "seconds": seconds,
        "ratio": {
            protocol.name: ratio(seconds[native(protocol.shape).name], seconds[protocol.name])
            for protocol in protocols
        },
    }


def _table(callers: str, load: Mapping[str, Any], errors: Mapping[str, float]) -> dict[str, Any]:
    rows: list[list[str]] = []
    for shape in _SHAPES:
        for protocol in (native(shape), *_of_shape(shape)):
            over = load["ratio"][protocol.name]
            speed = load["candidates"] / statistics.median(load["seconds"][protocol.name])
            is_native = protocol.name not in errors
            rows.append(
                [
                    protocol.name,
                    shape,
                    f"{speed:.1f}",
                    "1.00"
                    if is_native
                    else f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
                    "" if is_native else f"{errors[protocol.name]:.0e}",
                ]
            )
    lowest = min(load["ratio"][name]["median"] for name in errors)
    title = (
        f"{callers} callers, {load['candidates']:,} short samples; of the speed of /v1/score with "
        f"the same samples a request, the goal is {GOAL:.0%} and the lowest {lowest:.0%}"
    )
    columns = ["protocol", "a request holds", "candidates/s", "over /v1/score", "error"]
    return table(title, columns, rows)


if __name__ == "__main__":
    main(Setting, run)
