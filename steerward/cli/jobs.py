"""``steerward jobs ...``: fine-tuning jobs of a running server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Group

from steerward.cli import job_settings as settings
from steerward.cli.files import upload
from steerward.cli.http import ServerConnection, connect, path_of
from steerward.cli.job_request import file_id, job_body, job_model
from steerward.cli.job_tables import checkpoints_table, moment, settings_table, simple_table
from steerward.cli.job_view import event_line, progress_words, render
from steerward.cli.job_watch import command, events_since, watch
from steerward.cli.terminal import console, show
from steerward.protocol.errors import SteerwardError
from steerward.protocol.files import FileDeleted
from steerward.protocol.fine_tuning import Job, JobCheckpointList, JobList, JobStatus

_EVENTS_SHOWN = 20


def run_create(config: settings.JobCreateConfig) -> int:
    """Upload the files, make the job and watch it."""
    # What is wrong with the settings is told before anything is uploaded.
    body = job_body(config)
    with connect(config) as connection:
        body["model"] = job_model(connection, config.model)
        with _files(connection, config) as files:
            job = connection.post(path_of("fine_tuning", "jobs"), Job, body={**body, **files})
        print(job.id, flush=True)
        if config.watch:
            return watch(connection, job.id, config)
        print(f"watch it: {command(config, 'jobs', 'watch', job.id)}", file=sys.stderr)
        return 0


@contextmanager
def _files(
    connection: ServerConnection, config: settings.JobCreateConfig
) -> Iterator[dict[str, str]]:
    """Give the ids of a job's files, which are uploaded, and deleted if the job is refused."""
    given = {"training_file": config.prompts_file, "validation_file": config.validation_file}
    ids: dict[str, str] = {}
    uploaded: list[str] = []
    try:
        for name, source in given.items():
            if source is None:
                continue
            known = file_id(source)
            if known is None:
                known = upload(connection, Path(source)).id
                uploaded.append(known)
            ids[name] = known
        yield ids
    except SteerwardError as error:
        # Without an answer the job may have been made, and needs its files.
        if not error.is_retryable:
            for sent in uploaded:
                with suppress(SteerwardError):
                    connection.delete(path_of("files", sent), FileDeleted)
        raise


def run_list(config: settings.JobListConfig) -> None:
    """List the jobs."""
    with connect(config) as connection:
        jobs = connection.get(path_of("fine_tuning", "jobs"), JobList, limit=config.limit)
    if config.json_output:
        print(jobs.model_dump_json(indent=2))
        return
    rows = [
        (
            job.id,
            job.status,
            progress_words(job),
            job.model,
            job.fine_tuned_model or "",
            moment(job.created_at),
        )
        for job in jobs.data
    ]
    show(simple_table("id", "status", "progress", "model", "new policy", "created", rows=rows))
    if jobs.has_more:
        print(f"there are more; show them with --limit above {config.limit}", file=sys.stderr)


def run_show(config: settings.JobShowConfig) -> None:
    """Show a job."""
    with connect(config) as connection:
        job = _job(connection, config)
        if config.json_output:
            print(job.model_dump_json(indent=2))
            return
        events = events_since(connection, job.id, None, most=_EVENTS_SHOWN)
    view = render(job, events, now=time.time(), width=console().width)
    files = [
        ("method", job.method.get("type", "")),
        ("training_file", job.training_file),
        ("validation_file", job.validation_file or "held out from the training file"),
        ("seed", str(job.seed)),
        ("created", moment(job.created_at)),
    ]
    facts = simple_table("job", "", rows=files)
    method = job.method.get("type", "")
    show(Group(view, "", facts, "", settings_table(job.method.get(method, job.method))))


def run_watch(config: settings.JobWatchConfig) -> int:
    """Watch a job until it is over."""
    with connect(config) as connection:
        return watch(connection, config.job, config)


def run_events(config: settings.JobEventsConfig) -> None:
    """Print the events of a job."""
    with connect(config) as connection:
        for event in events_since(connection, config.job, None, most=config.limit):
            print(event_line(event))


def run_pause(config: settings.JobPauseConfig) -> None:
    """Pause a job."""
    if _ask(config, "pause", done="paused"):
        print(f"  go on: {command(config, 'jobs', 'resume', config.job)}", file=sys.stderr)


def run_resume(config: settings.JobResumeConfig) -> None:
    """Let a job go on."""
    if _ask(config, "resume", done="queued"):
        print(f"  watch it: {command(config, 'jobs', 'watch', config.job)}", file=sys.stderr)


def run_cancel(config: settings.JobCancelConfig) -> None:
    """Cancel a job."""
    _ask(config, "cancel", done="cancelled")


def _ask(config: settings.JobSettings, action: str, *, done: JobStatus) -> bool:
    """Ask for a change of a job, say what came of it, and return whether it is done."""
    with connect(config) as connection:
        job = connection.post(path_of("fine_tuning", "jobs", config.job, action), Job)
    is_done = job.status == done
    # Whoever runs it does so at the next point where nothing is lost.
    later = "" if is_done else f", and asked to {action}"
    print(f"job {job.id} is {job.status}{later}")
    return is_done


def run_checkpoints(config: settings.JobCheckpointsConfig) -> None:
    """List the checkpoints of a job."""
    with connect(config) as connection:
        path = path_of("fine_tuning", "jobs", config.job, "checkpoints")
        show(checkpoints_table(connection.get(path, JobCheckpointList, limit=100).data))


def _job(connection: ServerConnection, config: settings.JobSettings) -> Job:
    return connection.get(path_of("fine_tuning", "jobs", config.job), Job)
