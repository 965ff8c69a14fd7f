"""A process of its own, as pipelines have for rewards: what it runs must be sendable to it."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def in_another_process(function: Callable[..., ResultT], *arguments: Any, **more: Any) -> ResultT:
    """Return what a function gives in a process that shares no memory with this one."""
    # A forked one would have everything already, and nothing would have to be sent.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **more).result(timeout=120)


def names_and_kinds(functions: Sequence[Callable[..., Any]]) -> list[tuple[str, bool]]:
    """Return what TRL reads of reward functions: each one's name, and whether it is async."""
    return [(function.__name__, inspect.iscoroutinefunction(function)) for function in functions]


def awaited(functions: Sequence[Callable[..., Any]], batch: dict[str, Any]) -> dict[str, Any]:
    """Return what async reward functions give for a batch, by name."""
    return {function.__name__: asyncio.run(function(**batch)) for function in functions}
