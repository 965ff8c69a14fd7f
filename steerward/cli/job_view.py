"""The live view of a job: from what is known of it, and the time, to what a terminal shows.

Pure: nothing is asked of a server here, and nothing is printed. Texts of the server are shown
without control characters, and never read as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steerward.cli.job_tables import (
    duration,
    evaluations_table,
    history_table,
    number,
    plain,
    rewards_table,
)
from steerward.protocol.fine_tuning import (
    FINAL_STATUSES,
    IterationProgress,
    Job,
    JobEvent,
    JobStatus,
)

_EVENTS_SHOWN = 5
_WIDEST_BAR = 50
_STATUS_STYLES: dict[JobStatus, str] = {
    "queued": "yellow",
    "running": "cyan",
    "paused": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}
_LEVEL_STYLES = {"info": "dim", "warn": "yellow", "error": "red"}
# Word for what a step has done, where it counts.
_COUNTED = {"evaluating": "prompts", "sampling": "prompts", "training": "steps"}


def render(job: Job, events: Sequence[JobEvent], *, now: float, width: int) -> Group:
    """Return the view of a job.

    Args:
        job: As the server tells it.
        events: In the order of time; the last messages are shown.
        now: Seconds since 1970.
        width: Of the terminal, in columns; narrow ones get fewer columns of the history.
    """
    parts: list[RenderableType] = [_header(job, now), _step(job, width), _facts(job, now)]
    rewards = rewards_table(job.progress.history) if job.progress.iterations else None
    if rewards is not None:
        parts += ["", rewards]
    if job.progress.history:
        table = history_table if job.progress.iterations else evaluations_table
        parts += ["", table(job.progress.history, width=width)]
    messages = [event for event in events if event.type == "message"]
    if messages:
        parts += ["", _last_events(messages[-_EVENTS_SHOWN:])]
    if job.error is not None:
        parts += ["", Text(error_words(job), style="red")]
    return Group(*parts)


def error_words(job: Job) -> str:
    """Return why a job failed or paused itself; empty if it did neither."""
    if job.error is None:
        return ""
    place = f" (at {plain(job.error.param)})" if job.error.param else ""
    return f"{plain(job.error.code)}: {plain(job.error.message)}{place}"


def event_line(event: JobEvent) -> str:
    """Return an event as a line without control characters."""
    when = datetime.fromtimestamp(event.created_at).astimezone().isoformat(timespec="seconds")
    data = event.data if event.type == "metrics" else None
    values = [
        f"{plain(name)}={number(value) if isinstance(value, float) else plain(str(value))}"
        for name, value in _most_wanted(data or {}).items()
        if isinstance(value, int | float | str)
    ]
    return " ".join([when, f"{event.level:5}", plain(event.message), *values])


def _most_wanted(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people look at in the log of an optimiser's step; other data as they are."""
    rewards = {
        name.removeprefix("rewards/").removesuffix("/mean"): value
        for name, value in data.items()
        if name.startswith("rewards/") and name.endswith("/mean")
    }
    return {"loss": data.get("loss"), **rewards} if rewards else dict(data)


def progress_words(job: Job) -> str:
    """Return where a job is in one short text."""
    progress = job.progress
    if not progress.iterations:
        return f"{progress.done}/{progress.total} steps"
    if job.status in FINAL_STATUSES:
        return f"{_iterations_done(job)}/{progress.iterations}"
    return f"{progress.iteration}/{progress.iterations} {progress.step}"


def _iterations_done(job: Job) -> int:
    """Return how many iterations led to new weights."""
    return sum(1 for item in job.progress.history if item.iteration and item.weight_version)


def _header(job: Job, now: float) -> Text:
    header = Text.assemble(
        (plain(job.id), "bold"), "  ", plain(job.model), "  ", (job.status, _style(job.status))
    )
    if job.fine_tuned_model:
        header.append(f"  -> {plain(job.fine_tuned_model)}", style="bold green")
    end = now if job.finished_at is None else job.finished_at
    header.append(f"  {'for' if job.finished_at is None else 'after'} ", style="dim")
    header.append(duration(end - job.created_at), style="dim")
    return header


def _style(status: JobStatus) -> str:
    return f"bold {_STATUS_STYLES.get(status, 'default')}"


def _step(job: Job, width: int) -> RenderableType:
    """Return the iteration and the step at hand, with a bar where the step counts."""
    progress = job.progress
    words = Text(f"iteration {progress.iteration}/{progress.iterations}  {progress.step}")
    if not progress.iterations:
        words = Text(progress.step)
    if job.status == "queued":
        return Text("waiting until the server begins with it", style="dim")
    if job.status in FINAL_STATUSES:
        if not progress.iterations:
            return Text(f"{progress.done:,} of {progress.total:,} steps done")
        return Text(f"{_iterations_done(job)} of {progress.iterations} iterations done")
    if not progress.total:
        return words
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=progress.total, completed=progress.done, width=max(5, min(_WIDEST_BAR, width // 3))
    )
    counted = _COUNTED.get(progress.step, "") if progress.iterations else "steps"
    count = f"{progress.done:,}/{progress.total:,} {counted}".rstrip()
    grid.add_row(words, bar, count)
    return grid


def _facts(job: Job, now: float) -> Text:
    """Return the numbers of the iteration at hand that have a place of their own."""
    progress = job.progress
    current = _current(job)
    facts: list[str] = []
    if current is not None and current.sampled:
        share = f" ({current.accepted / current.sampled:.0%})" if current.accepted else ""
        facts += [f"sampled {current.sampled:,}", f"accepted {current.accepted:,}{share}"]
    kl = next((item.kl for item in reversed(progress.history) if item.kl is not None), None)
    if kl is not None:
        facts.append(f"KL {number(kl)} nats/token")
    if job.status == "running" and progress.tokens_per_s is not None:
        facts.append(f"{progress.tokens_per_s:,.0f} tokens/s")
    if job.status == "running" and progress.steps_per_s:
        facts.append(f"{1 / progress.steps_per_s:,.1f} s/step")
    if job.status == "running" and job.estimated_finish is not None:
        facts.append(f"{duration(job.estimated_finish - now)} left")
    return Text("  ".join(facts))


def _current(job: Job) -> IterationProgress | None:
    """Return the iteration at hand; before it has samples, the one before."""
    return next((item for item in reversed(job.progress.history) if item.sampled), None)


def _last_events(events: Sequence[JobEvent]) -> Table:
    table = Table.grid(padding=(0, 1))
    for event in events:
        when = datetime.fromtimestamp(event.created_at).strftime("%H:%M:%S")
        style = _LEVEL_STYLES.get(event.level, "default")
        table.add_row(Text(when, style="dim"), Text(plain(event.message), style=style))
    return table
