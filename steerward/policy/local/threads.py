"""How many threads of the processor compute the steps: whichever number is faster.

The steps of a small model are so short that two threads wait for each other longer than they
compute; those of a large one are not. torch keeps the number by thread of Python, and one for
threads that are still to come, which must stay what it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import torch

_REPEATS = 5


def use_faster_number(steps: Callable[[], None]) -> int:
    """Let this thread compute with one thread of the processor or all, and return how many.

    Args:
        steps: What is timed: some steps as they will come.
    """
    every = torch.get_num_threads()
    seconds: dict[int, float] = {}
    for count in (1, every):
        _use(count, others=every)
        steps()
        seconds[count] = min(_timed(steps) for _ in range(_REPEATS))
    fastest = min(seconds, key=lambda count: seconds[count])
    _use(fastest, others=every)
    return fastest


def _use(count: int, *, others: int) -> None:
    torch.set_num_threads(count)
    # From another thread it changes the number of those to come, and not of this one.
    keeper = threading.Thread(target=torch.set_num_threads, args=(others,))
    keeper.start()
    keeper.join()


def _timed(steps: Callable[[], None]) -> float:
    began_at = time.perf_counter()
    steps()
    return time.perf_counter() - began_at
