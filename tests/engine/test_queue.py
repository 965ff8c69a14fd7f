"""The queue between threads: what runs, what waits, how fast, and its end."""

from __future__ import annotations

import threading

import pytest

from steerward.engine.queue import ChunkQueue, Speed
from steerward.protocol.errors import NotReady
from tests.engine.test_batcher import new_tally, submission


def test_backlog_tells_what_runs_and_what_waits() -> None:
    queue = ChunkQueue(max_tokens=100)
    queue.submit(submission(90, 90, deadline=7.3))
    assert queue.backlog().due == [(7.25, 180)]
    first = queue.take(new_tally, wait=False)
    second = queue.take(new_tally, wait=False)
    assert queue.num_tokens == 0
    assert queue.backlog().num_tokens == queue.backlog().running == 180
    queue.finish(first)
    queue.finish(first)
    assert queue.backlog().running == 90
    assert queue.backlog().tokens_per_s > 0
    queue.finish(second, has_failed=True)
    assert queue.backlog().num_tokens == 0


def test_failed_pass_says_nothing_about_speed() -> None:
    queue = ChunkQueue(max_tokens=100)
    queue.submit(submission(90))
    queue.finish(queue.take(new_tally, wait=False), has_failed=True)
    assert queue.backlog().tokens_per_s == 0


def test_waiting_thread_gets_what_comes() -> None:
    queue = ChunkQueue(max_tokens=100)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(len(queue.take(new_tally, wait=True))))
    thread.start()
    queue.submit(submission(10, 10))
    thread.join(10.0)
    assert taken == [2]


def test_closed_queue_gives_and_takes_nothing() -> None:
    queue = ChunkQueue(max_tokens=100)
    one = submission(10)
    expected = list(one.chunks)
    queue.submit(one)
    queue.close("the end")
    queue.close("another end")
    assert queue.take(new_tally, wait=True) == []
    with pytest.raises(NotReady, match="the end"):
        queue.submit(submission(10))
    assert queue.clear() == expected


def test_close_wakes_the_waiting_thread() -> None:
    queue = ChunkQueue(max_tokens=100)
    thread = threading.Thread(target=lambda: queue.take(new_tally, wait=True))
    thread.start()
    queue.close("the end")
    thread.join(10.0)
    assert not thread.is_alive()


def test_speed_is_that_of_full_passes_and_a_little_less() -> None:
    """A hundred passes of 20 tokens, all overhead, say little about full ones."""
    speed = Speed(max_tokens=2048)
    assert speed.tokens_per_s == 0
    speed.record(2048, 0.2)
    assert speed.tokens_per_s == pytest.approx(0.9 * 10_240)
    for _ in range(100):
        speed.record(20, 0.02)
    assert speed.tokens_per_s > 0.75 * 10_240


def test_speed_follows_a_device_that_slows_down() -> None:
    speed = Speed(max_tokens=2048)
    for _ in range(100):
        speed.record(2048, 0.1)
    for _ in range(40):
        speed.record(2048, 0.2)
    assert speed.tokens_per_s == pytest.approx(0.9 * 10_240, rel=0.1)
