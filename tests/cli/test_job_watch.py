"""Watching a job: nothing is missed or told twice, broken connections mend, Ctrl-C only leaves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from steerward.cli.http import ServerConnection
from steerward.cli.job_watch import News, Trouble, events_since, follow
from steerward.cli.main import main
from steerward.protocol.errors import ConnectionFailed, InvalidRequest, NotReady, Unauthorized
from steerward.protocol.fine_tuning import JobProgress
from tests.cli.conftest import KEY, OWNER, JobServer, until

POLL_S = 0.01


@pytest.fixture
def connection(job_server: JobServer) -> Iterator[ServerConnection]:
    with ServerConnection(job_server.url, api_key=KEY) as connection:
        yield connection


def anything(_: object) -> bool:
    return True


def next_of(
    news: Iterator[Any], kind: type[Any], condition: Callable[[Any], Any] = anything
) -> Any:
    return next(item for item in news if isinstance(item, kind) and condition(item))


def messages(news: Any) -> list[str]:
    return [event.message for event in news.events]


def test_each_event_comes_once_in_the_order_of_time(
    connection: ServerConnection, job_server: JobServer, job_id: str
) -> None:
    for number in range(205):
        job_server.store.add_event(job_id, str(number))
    news = follow(connection, job_id, poll_s=POLL_S)
    seen = messages(next(news))
    job_server.store.add_event(job_id, "205")
    seen += messages(next_of(news, News, messages))
    job_server.start(job_id)
    job_server.store.add_event(job_id, "206")
    job_server.store.finish(job_id, OWNER, status="succeeded", fine_tuned_model="better")
    rest: list[Any] = list(news)
    assert seen + [message for item in rest for message in messages(item)] == [
        str(number) for number in range(207)
    ]
    assert rest[-1].job.status == "succeeded"


@pytest.mark.parametrize("kind", ["busy", "half"])
def test_lost_connection_is_tried_again_and_nothing_is_lost(
    connection: ServerConnection, job_server: JobServer, job_id: str, kind: Any
) -> None:
    news = follow(connection, job_id, poll_s=POLL_S)
    assert isinstance(next(news), News)
    job_server.faults.kind = kind
    trouble = next_of(news, Trouble)
    assert isinstance(trouble.error, NotReady if kind == "busy" else ConnectionFailed)
    job_server.store.add_event(job_id, "meanwhile")
    job_server.faults.kind = "none"
    assert messages(next_of(news, News)) == ["meanwhile"]


def test_server_that_stays_away_ends_the_watch(
    connection: ServerConnection, job_server: JobServer, job_id: str
) -> None:
    news = follow(connection, job_id, poll_s=POLL_S, patience_s=0.05)
    next(news)
    job_server.faults.kind = "half"
    with pytest.raises(ConnectionFailed, match="gave up after 0 s without an answer"):
        list(news)


def test_server_that_never_answered_is_not_waited_for() -> None:
    # A port that nobody listens on.
    refused = pytest.raises(ConnectionFailed, match="Start it with `steerward serve`")
    with ServerConnection("http://127.0.0.1:9") as connection, refused:
        next(follow(connection, "ftjob-1"))


def test_refusal_ends_the_watch_at_once(job_server: JobServer, job_id: str) -> None:
    refused = pytest.raises(Unauthorized)
    with ServerConnection(job_server.url, api_key="wrong") as connection, refused:
        next(follow(connection, job_id))


@pytest.mark.parametrize("url", ["http://[::1", "http://exa\tmple"])
def test_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(InvalidRequest, match="is no URL"):
        ServerConnection(url)


def test_newest_events_are_those_that_are_asked_for(
    connection: ServerConnection, job_server: JobServer, job_id: str
) -> None:
    for number in range(5):
        job_server.store.add_event(job_id, str(number))
    events = events_since(connection, job_id, None, most=2)
    assert [event.message for event in events] == ["3", "4"]


def test_job_that_a_person_paused_is_watched_on(
    connection: ServerConnection, job_server: JobServer, job_id: str
) -> None:
    job_server.store.request(job_id, "pause")
    news = follow(connection, job_id, poll_s=POLL_S)
    assert next_of(news, News, lambda item: item.job.status == "paused")
    job_server.store.request(job_id, "resume")
    assert next_of(news, News, lambda item: item.job.status == "queued")


def test_key_of_the_environment_with_a_line_break_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clean_environment: None
) -> None:
    monkeypatch.setenv("STEERWARD_API_KEY", "hush\n")
    assert main(["jobs", "list"]) == 1
    err = capsys.readouterr().err
    assert "pass the key alone" in err
    assert "hush" not in err


class Terminal:
    """``steerward jobs watch`` in a terminal of its own."""

    def __init__(self, job_id: str) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "steerward", "jobs", "watch", job_id],
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
        )
        os.close(theirs)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, args=[ours], daemon=True)
        self._reader.start()

    def _read(self, terminal: int) -> None:
        with open(terminal, "rb", buffering=0) as file:
            # A terminal whose other end is closed is an error in place of an end.
            try:
                while piece := file.read(65536):
                    self.shown += piece.decode(errors="replace")
            except OSError:
                pass

    def wait(self) -> int:
        status = self.process.wait(timeout=20)
        self._reader.join(timeout=10)
        return status


def test_terminal_has_a_live_view_and_leaves_it_with_the_result(
    job_server: JobServer, job_id: str
) -> None:
    job_server.start(job_id)
    terminal = Terminal(job_id)
    until(lambda: "running" in terminal.shown)
    progress = JobProgress(step="sampling", iteration=1, iterations=3, done=7, total=9)
    job_server.store.save_progress(job_id, OWNER, progress, estimated_finish=None)
    until(lambda: "7/9 prompts" in terminal.shown)
    assert "\x1b[" in terminal.shown
    job_server.store.finish(job_id, OWNER, status="succeeded", fine_tuned_model="better")
    assert terminal.wait() == 0
    assert "the new policy is better" in terminal.shown


def test_ctrl_c_stops_watching_and_the_job_goes_on(job_server: JobServer, job_id: str) -> None:
    terminal = Terminal(job_id)
    until(lambda: "queued" in terminal.shown)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 130
    assert f"stopped watching; job {job_id} goes on" in terminal.shown
    assert f"steerward jobs cancel {job_id} --server {job_server.url}" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert job_server.store.get(job_id).wire().status == "queued"
