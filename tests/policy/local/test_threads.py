from __future__ import annotations

import threading

import pytest
import torch

from steerward.policy.local.threads import use_threads_for

EVERY = torch.get_num_threads()


@pytest.mark.parametrize(("num_parameters", "count"), [(5_000_000, 1), (7_000_000_000, EVERY)])
def test_the_number_is_of_this_thread_and_of_no_other(num_parameters: int, count: int) -> None:
    seen: list[int] = []

    def run() -> None:
        seen.append(use_threads_for(num_parameters))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [count, count]
    others: list[int] = []
    later = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert others == [EVERY]
    assert torch.get_num_threads() == EVERY
