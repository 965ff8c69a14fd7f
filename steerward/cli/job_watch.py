"""Watching a job: what is new, second by second, over connections that may break."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from steerward.cli.http import ServerConnection, path_of
from steerward.cli.job_settings import DEFAULT_SERVER, ServerSettings
from steerward.cli.job_tables import plain
from steerward.cli.job_view import error_words, event_line, render
from steerward.protocol.errors import ConnectionFailed, SteerwardError
from steerward.protocol.fine_tuning import FINAL_STATUSES, Job, JobEvent, JobEventList

POLL_S = 1.0
PATIENCE_S = 120.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
_PAGE = 100
_EVENTS_KEPT = 50


@dataclass(frozen=True, slots=True)
class News:
    """A job as it is now, and what happened to it since the last look, in the order of time."""

    job: Job
    events: list[JobEvent]


@dataclass(frozen=True, slots=True)
class Trouble:
    """The server does not answer."""

    error: SteerwardError
    lasting_s: float


def is_over(job: Job) -> bool:
    """Return whether nothing more happens to a job unless somebody acts.

    A job that a person paused may be resumed at any time by another one; a job that paused itself
    waits for its reason to go away.
    """
    return job.status in FINAL_STATUSES or (job.status == "paused" and job.error is not None)


def follow(
    connection: ServerConnection,
    job_id: str,
    *,
    poll_s: float = POLL_S,
    patience_s: float = PATIENCE_S,
) -> Iterator[News | Trouble]:
    """Yield what is new of a job until it is over; lost connections are tried again.

    Args:
        connection: To its server.
        job_id: Which job.
        poll_s: Pause between two looks.
        patience_s: How long the server may be away.

    Raises:
        SteerwardError: If the server refuses, does not answer at all, or is away for too long.
    """
    known: str | None = None
    lost_since: float | None = None
    reached = False
    backoff_s = _FIRST_BACKOFF_S
    while True:
        try:
            # The job first: whatever happened before it ended is among its events then.
            job = connection.get(path_of("fine_tuning", "jobs", job_id), Job)
            events = events_since(connection, job_id, known)
        except SteerwardError as error:
            if not error.is_retryable or not reached:
                raise
            now = time.monotonic()
            lost_since = now if lost_since is None else lost_since
            if now - lost_since >= patience_s:
                raise _gone(error, patience_s) from error
            yield Trouble(error, now - lost_since)
            time.sleep(min(backoff_s, max(0.0, lost_since + patience_s - now)))
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            continue
        reached, lost_since, backoff_s = True, None, _FIRST_BACKOFF_S
        known = events[-1].id if events else known
        yield News(job, events)
        if is_over(job):
            return
        time.sleep(poll_s)


def _gone(error: SteerwardError, patience_s: float) -> ConnectionFailed:
    return ConnectionFailed(
        f"gave up after {patience_s:.0f} s without an answer; the job goes on when its server "
        f"does; the last attempt said: {error.message}"
    )


def events_since(
    connection: ServerConnection, job_id: str, known: str | None, *, most: int | None = None
) -> list[JobEvent]:
    """Return the events after a known one, or all of them, in the order of time.

    Args:
        connection: To the job's server.
        job_id: Which job.
        known: Id of the last event that was seen.
        most: How many to return; the newest.

    Raises:
        SteerwardError: What the server or the connection failed with.
    """
    newest_first: list[JobEvent] = []
    before: str | None = None
    while most is None or len(newest_first) < most:
        limit = _PAGE if most is None else min(_PAGE, most - len(newest_first))
        path = path_of("fine_tuning", "jobs", job_id, "events")
        page = connection.get(path, JobEventList, after=before, limit=limit)
        for event in page.data:
            if event.id == known:
                return newest_first[::-1]
            newest_first.append(event)
        if not page.has_more or not page.data:
            break
        before = page.data[-1].id
    return newest_first[::-1]


def command(settings: ServerSettings, *words: str) -> str:
    """Return a command line for people to copy, with the server where it is not the usual one."""
    server = [] if settings.server == DEFAULT_SERVER else ["--server", settings.server]
    return " ".join(["steerward", *words, *server])


def watch(connection: ServerConnection, job_id: str, settings: ServerSettings) -> int:
    """Show a job until it is over, and return the exit status.

    Raises:
        SteerwardError: What the server or the connection failed with.
    """
    console = Console(highlight=False)
    # Colours can be forced on a pipe; moving the cursor there would only fill it with codes.
    is_live = sys.stdout.isatty() and not console.is_dumb_terminal
    try:
        show = _show_live if is_live else _show_lines
        job = show(follow(connection, job_id), console)
    except KeyboardInterrupt:
        print(
            f"stopped watching; job {job_id} goes on\n"
            f"  watch again: {command(settings, 'jobs', 'watch', job_id)}\n"
            f"  end the job: {command(settings, 'jobs', 'cancel', job_id)}",
            file=sys.stderr,
        )
        return 130
    return report_end(job, settings)


def _show_live(news: Iterator[News | Trouble], console: Console) -> Job:
    events: list[JobEvent] = []
    job: Job | None = None
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for item in news:
            notice = Text()
            if isinstance(item, News):
                job = item.job
                events = [*events, *item.events][-_EVENTS_KEPT:]
            else:
                notice = Text(_trouble_words(item), style="yellow")
            if job is not None:
                view = render(job, events, now=time.time(), width=console.width)
                live.update(Group(view, notice), refresh=True)
    assert job is not None
    return job


def _show_lines(news: Iterator[News | Trouble], _: Console) -> Job:
    job: Job | None = None
    is_away = False
    for item in news:
        if isinstance(item, News):
            job = item.job
            is_away = False
            for event in item.events:
                print(event_line(event), flush=True)
        elif not is_away:
            is_away = True
            print(_trouble_words(item), file=sys.stderr, flush=True)
    assert job is not None
    return job


def _trouble_words(trouble: Trouble) -> str:
    return (
        f"connection lost for {trouble.lasting_s:.0f} s, trying again: "
        f"{plain(trouble.error.message)}"
    )


def report_end(job: Job, settings: ServerSettings) -> int:
    """Say how a job ended and what to do now; return the exit status."""
    if job.status == "succeeded":
        results = ("every sample", "samples") if job.progress.iterations else ("its log", "log")
        print(
            f"job {job.id} succeeded: the new policy is {plain(job.fine_tuned_model or '?')}\n"
            f"  {results[0]}: {command(settings, 'jobs', 'samples', job.id)} "
            f"--out {results[1]}.jsonl"
        )
        return 0
    reason = f": {error_words(job)}" if job.error is not None else ""
    ended = "paused itself" if job.status == "paused" else job.status
    print(f"steerward: job {job.id} {ended}{reason}", file=sys.stderr)
    if job.status == "paused":
        print(f"  go on: {command(settings, 'jobs', 'resume', job.id)}", file=sys.stderr)
    return 1
