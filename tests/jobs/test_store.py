"""Jobs, their events and checkpoints, and the policies they made outlive the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from steerward.jobs.store import JobStore
from steerward.protocol.alignment import PamaSettings
from steerward.protocol.errors import InvalidRequest, NotFound
from steerward.protocol.fine_tuning import IterationProgress, JobError, JobProgress
from steerward.protocol.rsf import RsfSettings
from tests.jobs.conftest import CreateJob

NO_JOB = "ftjob-" + "0" * 24
NAMES_OF_NOTHING = [NO_JOB, "", "ftjob-\0", "\ud800", "x" * 10_000, "ftjob-' OR 1=1"]


def running(store: JobStore, create_job: CreateJob) -> str:
    create_job()
    record = store.acquire("me", models=["pocket-policy"], lease_s=60)
    assert record is not None
    return record.id


def test_a_job_is_kept_as_it_was_asked_for(
    open_engine: Callable[[], Engine], create_job: CreateJob, training_file: str
) -> None:
    rsf = {"iterations": 5, "directions": [{"helpfulness": 1.0}], "training": {"epochs": 2}}
    made = create_job(
        seed=2**40, rsf=rsf, suffix="new", metadata={"team": "réd\0", 'a"b': "1"}, model="mögel"
    )
    record = JobStore(open_engine()).get(made.id)
    assert record == made
    assert (record.status, record.request, record.model) == ("queued", "none", "mögel")
    assert (record.seed, record.suffix) == (2**40, "new")
    assert isinstance(record.settings, RsfSettings)
    assert record.settings.directions == [{"helpfulness": 1.0}]
    assert record.progress == JobProgress(iterations=5)
    wire = record.wire()
    assert wire.method["type"] == "rsf"
    assert wire.method["rsf"]["training"]["epochs"] == 2
    assert wire.metadata == {"team": "réd\0", 'a"b': "1"}
    assert (wire.training_file, wire.finished_at) == (training_file, None)


def test_a_job_of_another_method_is_kept_with_its_settings(
    open_engine: Callable[[], Engine], create_job: CreateJob
) -> None:
    pama = {"weights": {"helpfulness": 1.0, "verbosity": -0.5}, "steps": 7}
    made = create_job(seed=11, method={"type": "pama", "pama": pama})
    record = JobStore(open_engine()).get(made.id)
    assert record == made
    assert isinstance(record.settings, PamaSettings)
    assert record.settings == PamaSettings.model_validate({**pama, "seed": 11})
    assert record.progress == JobProgress(iterations=0)
    wire = record.wire()
    assert (wire.method["type"], wire.seed, wire.method["pama"]["seed"]) == ("pama", 11, 11)
    assert set(wire.method) == {"type", "pama"}


@pytest.mark.parametrize("field", ["training_file", "validation_file", "sft_file"])
def test_a_job_with_a_file_that_is_not_there_is_refused(
    store: JobStore, create_job: CreateJob, field: str
) -> None:
    missing: dict[str, Any] = {field: "file-" + "0" * 24}
    if field == "sft_file":
        missing = {"rsf": {**missing, "sft_share": 0.5}}
    with pytest.raises(NotFound, match="there is no file.*upload it first") as caught:
        create_job(**missing)
    assert (caught.value.param or "").endswith(field)
    assert store.list(after=None, limit=10) == ([], False)


def test_a_seed_that_no_database_can_keep_is_refused(create_job: CreateJob) -> None:
    with pytest.raises(InvalidRequest, match="63 bits"):
        create_job(seed=2**80)


@pytest.mark.parametrize("name", NAMES_OF_NOTHING, ids=range(len(NAMES_OF_NOTHING)))
def test_an_id_of_nothing_is_not_found(store: JobStore, name: str) -> None:
    for ask in (
        lambda: store.get(name),
        lambda: store.list(after=name, limit=1),
        lambda: store.request(name, "cancel"),
        lambda: store.add_event(name, "x"),
        lambda: store.events(name, after=None, limit=1),
        lambda: store.add_checkpoint(
            name, folder="x", step_number=1, metrics={}, weight_version="a"
        ),
        lambda: store.checkpoints(name, after=None, limit=1),
    ):
        with pytest.raises(NotFound, match="there is no job") as caught:
            ask()
        assert len(caught.value.message) < 200
        caught.value.message.encode()


def test_jobs_are_listed_newest_first_in_pages(store: JobStore, create_job: CreateJob) -> None:
    made = [create_job().id for _ in range(5)]
    first, has_more = store.list(after=None, limit=3)
    assert [record.id for record in first] == made[:1:-1]
    assert has_more
    rest, has_more = store.list(after=first[-1].id, limit=3)
    assert [record.id for record in rest] == made[1::-1]
    assert not has_more


def test_jobs_are_found_by_all_of_their_metadata(store: JobStore, create_job: CreateJob) -> None:
    create_job()
    create_job(metadata={"team": "red"})
    both = create_job(metadata={"team": "red", 'k"ey\0': "b\0"})
    found, has_more = store.list(after=None, limit=9, metadata={"team": "red", 'k"ey\0': "b\0"})
    assert ([record.id for record in found], has_more) == ([both.id], False)
    assert len(store.list(after=None, limit=9, metadata={"team": "red"})[0]) == 2
    assert store.list(after=None, limit=9, metadata={"red": "team"}) == ([], False)


def test_a_queued_job_is_paused_resumed_and_cancelled_at_once(
    store: JobStore, create_job: CreateJob
) -> None:
    job_id = create_job().id
    assert store.request(job_id, "pause").status == "paused"
    assert store.acquire("me", models=["pocket-policy"], lease_s=60) is None
    assert store.request(job_id, "resume").status == "queued"
    cancelled = store.request(job_id, "cancel")
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    with pytest.raises(InvalidRequest, match="the job is cancelled"):
        store.request(job_id, "resume")


def test_progress_of_a_running_job_is_kept(store: JobStore, create_job: CreateJob) -> None:
    job_id = running(store, create_job)
    history = [IterationProgress(iteration=1, loss=float("nan"), rewards={"h": float("inf")})]
    progress = JobProgress(step="training", iterations=3, iteration=1, history=history)
    store.save_progress(job_id, "me", progress, estimated_finish=2**33)
    record = store.get(job_id)
    assert repr(record.progress) == repr(progress)
    assert record.estimated_finish == 2**33


def test_a_job_that_succeeded_names_what_it_made(store: JobStore, create_job: CreateJob) -> None:
    job_id = running(store, create_job)
    store.finish(
        job_id,
        "me",
        status="succeeded",
        fine_tuned_model="ft:pocket",
        result_files=["file-1"],
        trained_tokens=2**40,
    )
    wire = store.get(job_id).wire()
    assert (wire.status, wire.fine_tuned_model) == ("succeeded", "ft:pocket")
    assert (wire.result_files, wire.trained_tokens) == (["file-1"], 2**40)
    assert wire.finished_at is not None
    assert wire.finished_at >= wire.created_at


def test_why_a_job_paused_by_itself_is_told_until_it_is_resumed(
    store: JobStore, create_job: CreateJob
) -> None:
    job_id = running(store, create_job)
    error = JobError(code="not_ready", message="the reward model is away\0")
    store.finish(job_id, "me", status="paused", error=error)
    paused = store.get(job_id)
    assert (paused.error, paused.finished_at) == (error, None)
    assert store.request(job_id, "resume").error is None


def test_events_are_in_order_and_followed_by_the_last_one_seen(
    store: JobStore, create_job: CreateJob
) -> None:
    job_id, other = create_job().id, create_job().id
    made = [store.add_event(job_id, f"{number}\0") for number in range(4)]
    foreign = store.add_event(other, "other", level="error", type="metrics", data={"kl": 0.5})
    assert foreign.data == {"kl": 0.5}
    assert sorted(event.id for event in made) == [event.id for event in made]
    newest, has_more = store.events(job_id, after=None, limit=3)
    assert (newest, has_more) == (made[:0:-1], True)
    assert store.events(job_id, after=newest[-1].id, limit=3) == (made[:1], False)
    followed = store.events(job_id, after=made[1].id, limit=9, newest_first=False)
    assert followed == (made[2:], False)
    for wrong in (foreign.id, "ftevent-1", "\0", "ftevent-" + "9" * 16):
        with pytest.raises(NotFound, match=f"no event of {job_id}"):
            store.events(job_id, after=wrong, limit=1)


def test_a_step_that_is_done_again_has_one_checkpoint(
    store: JobStore, create_job: CreateJob
) -> None:
    job_id = create_job().id

    def add(step: int, version: str) -> str:
        metrics = {"kl": None, "direction_score": 0.25}
        return store.add_checkpoint(
            job_id, folder=f"/it/{step}", step_number=step, metrics=metrics, weight_version=version
        ).id

    first, replaced = add(1, "a"), add(2, "b")
    again = add(2, "c")
    assert again != replaced
    found, has_more = store.checkpoints(job_id, after=None, limit=1)
    assert ([one.id for one in found], has_more) == ([again], True)
    assert found[0].metrics == {"kl": None, "direction_score": 0.25}
    assert (found[0].weight_version, found[0].fine_tuned_model_checkpoint) == ("c", "/it/2")
    rest, has_more = store.checkpoints(job_id, after=again, limit=5)
    assert ([one.id for one in rest], has_more) == ([first], False)
    with pytest.raises(NotFound, match="no checkpoint"):
        store.checkpoints(job_id, after=replaced, limit=5)


def test_a_fine_tuned_policy_has_one_entry_a_name(store: JobStore) -> None:
    def save(name: str, version: str) -> None:
        store.save_fine_tuned(
            name=name,
            job_id=NO_JOB,
            base="pocket-policy",
            kind="full",
            folder="/weights",
            weight_version=version,
        )

    save("ft:a", "1")
    save("ft:b", "2")
    save("ft:a", "3")
    assert {one.name: one.weight_version for one in store.fine_tuned()} == {
        "ft:a": "3",
        "ft:b": "2",
    }
    assert store.get_fine_tuned("ft:b").base == "pocket-policy"
    store.delete_fine_tuned("ft:b")
    assert [one.name for one in store.fine_tuned()] == ["ft:a"]
    for forgotten in (store.get_fine_tuned, store.delete_fine_tuned):
        with pytest.raises(NotFound, match="no fine-tuned policy 'ft:b'"):
            forgotten("ft:b")
