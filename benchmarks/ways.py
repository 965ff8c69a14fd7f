"""The ways to score by name, each built from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.served import ServerSubject
from benchmarks.subjects import ALONE, ENGINE, HTTP, PADDED, EngineSubject, PlainSubject, Subject

WAYS: Mapping[str, Callable[[Path], Subject]] = {
    PADDED: partial(PlainSubject, batch_size=8),
    ALONE: partial(PlainSubject, batch_size=1),
    ENGINE: EngineSubject,
    HTTP: ServerSubject,
}
