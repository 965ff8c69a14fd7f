"""Jobs and files for an event loop: what may take long is done beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from steerward.jobs.desk import JobDesk
from steerward.jobs.files import FileStore
from steerward.jobs.fine_tuned import fine_tuned_name
from steerward.jobs.records import FineTuned
from steerward.jobs.store import JobStore
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.fine_tuning import JobRequest
from tests.jobs.conftest import CreateJob, upload

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def checked_in() -> list[threading.Thread]:
    """The threads that requests were checked in."""
    return []


@pytest.fixture
def desk(
    store: JobStore, file_store: FileStore, checked_in: list[threading.Thread]
) -> Iterator[JobDesk]:
    async def forget(_: FineTuned) -> None:
        raise AssertionError("nothing is deleted")

    desk = JobDesk(
        store,
        file_store,
        check=lambda _: checked_in.append(threading.current_thread()),
        on_change=lambda: None,
        on_delete=forget,
    )
    yield desk
    desk.close()


async def test_the_check_of_a_request_does_not_hold_the_event_loop_up(
    desk: JobDesk, training_file: str, checked_in: list[threading.Thread]
) -> None:
    body = {"model": "tiny", "training_file": training_file, "method": {"type": "rsf"}}
    await desk.create(JobRequest.model_validate(body))
    (thread,) = checked_in
    assert thread is not threading.current_thread()


async def test_names_of_jobs_are_owned_until_they_are_over(
    desk: JobDesk, store: JobStore, create_job: CreateJob
) -> None:
    job = create_job(model="tiny", suffix="mine")
    making = fine_tuned_name("tiny", job)
    assert [await desk.owns(name) for name in ("tiny", making, "other")] == [True, True, False]
    # A job that is resumed looks whether all is as it was.
    store.request(job.id, "pause")
    assert [await desk.owns(name) for name in ("tiny", making)] == [False, True]
    store.request(job.id, "cancel")
    assert [await desk.owns(name) for name in ("tiny", making)] == [False, False]


async def test_what_a_job_has_made_is_owned_as_long_as_it_is_listed(
    desk: JobDesk, store: JobStore, create_job: CreateJob
) -> None:
    job = create_job()
    store.request(job.id, "cancel")
    store.save_fine_tuned(
        name="ft:made", job_id=job.id, base="tiny", kind="full", folder="/f", weight_version="v"
    )
    assert await desk.owns("ft:made")
    store.delete_fine_tuned("ft:made")
    assert not await desk.owns("ft:made")


async def test_the_name_of_what_a_job_makes_ends_with_its_method(
    desk: JobDesk, create_job: CreateJob
) -> None:
    method = {"type": "pama", "pama": {"steps": 3}}
    job = create_job(model="tiny", method=method)
    making = fine_tuned_name("tiny", job)
    assert making == f"ft:tiny:pama:{job.id[-8:]}"
    assert await desk.owns(making)
    assert not await desk.owns(making.replace("pama", "rsf"))


async def test_preferences_are_for_modpo_and_mapl_and_prompts_for_the_others(
    desk: JobDesk, file_store: FileStore, training_file: str
) -> None:
    row = b'{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n'
    pairs = upload(file_store, row)
    modpo = {"type": "modpo", "modpo": {"margins": {"safety": 1.0}}}
    for file, method, is_right in (
        (pairs, modpo, True),
        (training_file, modpo, False),
        (pairs, {"type": "mapl"}, True),
        (training_file, {"type": "mapl"}, False),
        (pairs, {"type": "grpo"}, False),
        (training_file, {"type": "grpo"}, True),
    ):
        body = {"model": "tiny", "training_file": file, "method": method}
        request = JobRequest.model_validate(body)
        if is_right:
            assert (await desk.create(request)).method["type"] == method["type"]
            continue
        with pytest.raises(InvalidRequest, match="training_file needs") as caught:
            await desk.create(request)
        assert caught.value.param == "training_file"
