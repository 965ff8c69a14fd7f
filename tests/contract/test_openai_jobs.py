"""OpenAI's own client uploads files, and starts, follows and ends fine-tuning jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from anyio.from_thread import start_blocking_portal
from openai import AsyncOpenAI, OpenAI

from steerward.config import ServeConfig
from steerward.protocol.fine_tuning import JobError
from tests.server.conftest import listening
from tests.server.jobs.serving import POLICY, PROMPTS, Serving, lines, run_job, serving

KEY = "secret"
METHOD: Any = {"type": "rsf", "rsf": {"iterations": 2, "directions": 4, "seed": 5}}


@asynccontextmanager
async def at_port(folder: Path) -> AsyncIterator[tuple[Serving, str]]:
    config = ServeConfig.model_validate({"device": "cpu", "api_key": [KEY]})
    async with serving(folder, config) as found, listening(found.app) as url:
        yield found, f"{url}/v1"


@pytest.fixture
def served(tmp_path: Path, clean_environment: None) -> Iterator[tuple[Serving, str]]:
    """A server on a real port, in a thread of its own."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(at_port(tmp_path)) as found,
    ):
        yield found


@pytest.fixture
def store(served: tuple[Serving, str]) -> Any:
    return served[0].store


@pytest.fixture
def client(served: tuple[Serving, str]) -> Iterator[OpenAI]:
    with OpenAI(base_url=served[1], api_key=KEY, max_retries=0) as found:
        yield found


def send(client: OpenAI, name: str = "prompts.jsonl") -> str:
    return client.files.create(file=(name, lines(PROMPTS)), purpose="fine-tune").id


def test_files_are_uploaded_listed_read_and_deleted(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(PROMPTS))
    file = client.files.create(file=path, purpose="fine-tune")
    assert (file.filename, file.bytes, file.status) == (
        "rows.jsonl", path.stat().st_size, "processed",
    )  # fmt: skip
    assert file.model_extra == {"rows": 4, "holds": "prompts"}
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == path.read_bytes()
    others = [send(client, f"{number}.jsonl") for number in range(2)]
    # Page after page, as the client turns them.
    assert [found.id for found in client.files.list(limit=1)] == [*others[::-1], file.id]
    assert [found.id for found in client.files.list(order="asc")] == [file.id, *others]
    assert list(client.files.list(purpose="fine-tune-results")) == []
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    with pytest.raises(openai.NotFoundError, match=file.id):
        client.files.retrieve(file.id)


def test_file_is_processed_at_once(client: OpenAI) -> None:
    assert client.files.wait_for_processing(send(client), max_wait_seconds=5).status == "processed"


def test_job_is_created_as_the_client_sends_it(client: OpenAI) -> None:
    training, validation = send(client), send(client)
    job = client.fine_tuning.jobs.create(
        model=POLICY,
        training_file=training,
        validation_file=validation,
        method=METHOD,
        seed=3,
        suffix="mine",
        metadata={"team": "red"},
    )
    assert (job.object, job.status, job.model, job.seed) == (
        "fine_tuning.job", "queued", POLICY, 5,
    )  # fmt: skip
    assert (job.training_file, job.validation_file) == (training, validation)
    assert (job.metadata, job.result_files, job.error) == ({"team": "red"}, [], None)
    assert job.method is not None
    assert job.method.model_extra is not None
    assert job.method.model_extra["rsf"]["iterations"] == 2
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_preferences_in_openais_form_are_for_modpo(client: OpenAI) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    row = {
        "input": {"messages": turns, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_output": [{"role": "assistant", "content": "What?"}],
    }
    file = client.files.create(file=("pairs.jsonl", lines([row])), purpose="fine-tune")
    assert file.model_extra == {"rows": 1, "holds": "preferences"}
    method: Any = {"type": "modpo", "modpo": {"margins": {"safety": 1.0}}}
    job = client.fine_tuning.jobs.create(model=POLICY, training_file=file.id, method=method, seed=7)
    assert job.method is not None
    assert job.method.model_extra is not None
    used = job.method.model_extra["modpo"]
    assert (used["margins"], used["seed"], job.seed) == ({"safety": 1.0}, 7, 7)
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_jobs_are_listed_and_found_by_metadata(client: OpenAI) -> None:
    file = send(client)
    create = client.fine_tuning.jobs.create
    teams = ("red", "blue", "red")
    jobs = [
        create(model=POLICY, training_file=file, method=METHOD, metadata={"team": team})
        for team in teams
    ]
    ids = [job.id for job in jobs]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == ids[::-1]
    red = client.fine_tuning.jobs.list(metadata={"team": "red"}, limit=1)
    assert [job.id for job in red] == [ids[2], ids[0]]
    page = client.fine_tuning.jobs.list(after=ids[1])
    assert [job.id for job in page.data] == [ids[0]]


def test_job_is_paused_resumed_and_cancelled(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job_id = jobs.create(model=POLICY, training_file=send(client), method=METHOD).id
    statuses: list[str] = [jobs.pause(job_id).status, jobs.resume(job_id).status]
    assert [*statuses, jobs.cancel(job_id).status] == ["paused", "queued", "cancelled"]
    assert jobs.retrieve(job_id).finished_at is not None
    with pytest.raises(openai.UnprocessableEntityError, match="cancelled"):
        jobs.resume(job_id)


def test_finished_job_names_its_model_with_events_and_checkpoints(
    client: OpenAI, store: Any
) -> None:
    jobs = client.fine_tuning.jobs
    job_id = jobs.create(model=POLICY, training_file=send(client), method=METHOD).id
    record, owner = run_job(store)
    for step in (1, 2, 3):
        store.add_event(job_id, f"step {step}", type="metrics", data={"step": step})
        store.add_checkpoint(
            job_id,
            folder=f"/weights/{step}",
            step_number=step,
            metrics={"train_loss": 0.5, "direction_score": None},
            weight_version=f"v{step}",
        )
    store.finish(record.id, owner, status="succeeded", fine_tuned_model="ft", trained_tokens=9)
    job = jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model, job.trained_tokens) == ("succeeded", "ft", 9)
    events = list(jobs.list_events(job_id, limit=2))
    assert [event.message for event in events] == ["step 3", "step 2", "step 1"]
    assert [(event.type, event.level, event.data) for event in events[:1]] == [
        ("metrics", "info", {"step": 3}),
    ]
    checkpoints = list(jobs.checkpoints.list(job_id, limit=2))
    assert [found.step_number for found in checkpoints] == [3, 2, 1]
    assert checkpoints[0].fine_tuned_model_checkpoint == "/weights/3"
    assert checkpoints[0].metrics.train_loss == 0.5
    assert checkpoints[0].fine_tuning_job_id == job_id


def test_failed_job_tells_why(client: OpenAI, store: Any) -> None:
    jobs = client.fine_tuning.jobs
    job_id = jobs.create(model=POLICY, training_file=send(client), method=METHOD).id
    _, owner = run_job(store)
    error = JobError(code="training_failed", message="the loss is not finite")
    store.finish(job_id, owner, status="failed", error=error)
    job = jobs.retrieve(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("training_failed", "the loss is not finite")


def test_fine_tuned_model_is_deleted(client: OpenAI, store: Any) -> None:
    jobs = client.fine_tuning.jobs
    job_id = jobs.create(model=POLICY, training_file=send(client), method=METHOD).id
    name = "ft:pocket-policy:mine/1"
    store.save_fine_tuned(
        name=name, job_id=job_id, base=POLICY, kind="full", folder="/w", weight_version="v1"
    )
    deleted = client.models.delete(name)
    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    with pytest.raises(openai.NotFoundError):
        client.models.delete(name)


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    create = client.fine_tuning.jobs.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model=POLICY, training_file="file-" + "0" * 24, method=METHOD)
    assert (missing.value.param, missing.value.code) == ("training_file", "not_found")
    with pytest.raises(openai.UnprocessableEntityError) as dpo:
        create(model=POLICY, training_file="file-x", method={"type": "dpo"})
    assert dpo.value.param == "method.type"
    with pytest.raises(openai.UnprocessableEntityError) as purpose:
        client.files.create(file=b"{}", purpose="batch")
    assert purpose.value.param == "purpose"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").files.list()


@pytest.mark.anyio
async def test_the_same_without_blocking(served: tuple[Serving, str]) -> None:
    async with AsyncOpenAI(base_url=served[1], api_key=KEY, max_retries=0) as client:
        jobs = client.fine_tuning.jobs
        rows = ("rows.jsonl", lines(PROMPTS))
        file = await client.files.create(file=rows, purpose="fine-tune")
        assert (await client.files.content(file.id)).content == rows[1]
        created = [
            await jobs.create(model=POLICY, training_file=file.id, method=METHOD) for _ in range(3)
        ]
        assert [job.id async for job in jobs.list(limit=2)] == [job.id for job in created[::-1]]
        assert (await jobs.pause(created[0].id)).status == "paused"
        assert (await jobs.cancel(created[0].id)).status == "cancelled"
        served[0].store.add_event(created[1].id, "begun")
        assert [event.message async for event in jobs.list_events(created[1].id)] == ["begun"]
        assert [found async for found in jobs.checkpoints.list(created[1].id)] == []
        with pytest.raises(openai.UnprocessableEntityError, match="needed by"):
            await client.files.delete(file.id)
