"""Two processes that train together, on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any


def answers_of_two(module: str, *arguments: str) -> list[Any]:
    """Run a module as both ranks of a group, and return the JSON that each prints last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=200)[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in printed]
