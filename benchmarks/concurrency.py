"""Short texts under concurrent clients: the server against other ways to serve the same weights.

    python -m benchmarks.concurrency [--litserve-python PATH] [--rounds N] [--out FILE.json]

Single candidates that have 30 to 60 tokens with their prompts, and 32 clients, each of which
sends its next request when its answer is there, over the same bare HTTP connections to every
server. Servers run one after the other by turns; those whose turn it is not are idle. LitServe is
measured where it is installed: here, or in the environment of an interpreter that is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import main
from benchmarks.served import ServerSubject, TextServerSubject, version_of
from benchmarks.subjects import PlainSubject, Subject, opened
from benchmarks.throughput import CHECK, compare, comparison
from benchmarks.tokens import needed_tokens
from benchmarks.workload import short_singles, write_checkpoint

STEERWARD, SERIAL, BATCHING = "Steerward", "serial, as serve_rm", "LitServe"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    clients: int = 32
    requests: int = 512
    """Requests of a round, from all clients together."""
    layers: int = 8
    width: int = 512
    litserve_python: str = sys.executable
    """Interpreter of an environment with LitServe."""


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the throughput of each server on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    workload = short_singles(setting.requests)
    with opened(PlainSubject(folder, batch_size=1)) as alone:
        expected = alone.score(workload(CHECK))
    with ExitStack() as stack:
        subjects = {
            name: stack.enter_context(opened(start(folder)))
            for name, start in _servers(setting).items()
        }
        result = compare(
            subjects,
            workload,
            rounds=setting.rounds,
            expected=expected,
            needed_tokens=needed_tokens(folder, workload(CHECK)),
        )
    title = f"short texts, {setting.clients} clients"
    return {**result, "tables": [comparison(title, result, baseline=SERIAL)]}


def _servers(setting: Setting) -> dict[str, Callable[[Path], Subject]]:
    peer = partial(TextServerSubject, clients=setting.clients)
    servers: dict[str, Callable[[Path], Subject]] = {
        STEERWARD: partial(ServerSubject, clients=setting.clients),
        SERIAL: partial(peer, module="benchmarks.peers.serial"),
    }
    if version := version_of(setting.litserve_python, "litserve"):
        servers[f"{BATCHING} {version}"] = partial(
            peer,
            module="benchmarks.peers.batching",
            python=setting.litserve_python,
            takes_many=False,
        )
    else:
        print(f"{BATCHING}: not installed, left out", file=sys.stderr)
    return servers


if __name__ == "__main__":
    main(Setting, run)
