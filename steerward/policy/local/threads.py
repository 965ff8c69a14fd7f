"""How many threads of the processor compute the steps of a policy.

The steps of a small model are so short that two threads wait for each other longer than they
compute. The number follows from the model and not from a measurement: it decides how sums are
rounded, and one seed must give one answer.
"""

from __future__ import annotations

import threading

import torch

# On 2 threads 5.7 M parameters draw half as many tokens a second as on one.
_SMALL_PARAMETERS = 30_000_000


def use_threads_for(num_parameters: int) -> int:
    """Let this thread compute with as many threads of the processor as a model is worth.

    torch keeps the number by thread of Python, and one for threads that are still to come, which
    stays what it was.

    Returns:
        How many it is.
    """
    every = torch.get_num_threads()
    count = 1 if num_parameters < _SMALL_PARAMETERS else every
    torch.set_num_threads(count)
    # From another thread it changes the number of those to come, and not of this one.
    keeper = threading.Thread(target=torch.set_num_threads, args=(every,))
    keeper.start()
    keeper.join()
    return count
