from __future__ import annotations

import threading
import time

import torch

from steerward.policy.local.threads import use_faster_number


def test_the_faster_number_is_used_here_and_nowhere_else() -> None:
    every = torch.get_num_threads()
    seen: list[tuple[int, int]] = []

    def steps() -> None:
        # As if every further thread had to be waited for.
        time.sleep(0.001 * torch.get_num_threads())

    def run() -> None:
        seen.append((use_faster_number(steps), torch.get_num_threads()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(1, 1)]
    others: list[int] = []
    later = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert others == [every]
    assert torch.get_num_threads() == every
