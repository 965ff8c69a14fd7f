"""Jobs of a whole server: run, stopped, taken up again, and what is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.children import children_of
from tests.policies import ARMORM_RULE, save_policy
from tests.rsf_jobs import selected_in
from tests.server.jobs.running import FILES, JOBS, RunningServer, running_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_environment")]

LONG: dict[str, Any] = {"prompts_per_iteration": 200, "candidates_per_prompt": 8, "max_tokens": 64}
"""Settings with which sampling takes seconds."""


async def chat(server: RunningServer, model: str) -> str:
    """Return which weights answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answer = await server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["system_fingerprint"]


def in_step(step: str, *, done: int = 0) -> Callable[[dict[str, Any]], bool]:
    def reached(job: dict[str, Any]) -> bool:
        assert job["status"] in ("queued", "running"), job
        progress = job["progress"]
        return progress["step"] == step and progress["done"] >= done

    return reached


async def test_stopped_in_every_step_and_resumed_ends_as_undisturbed(
    tmp_path: Path, policy_folder: str
) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        undisturbed = await server.create()
        job = await server.end(undisturbed)
        assert job["status"] == "succeeded"
        name = job["fine_tuned_model"]
        assert name in await server.models()
        base = await chat(server, "tiny")
        assert await chat(server, name) != base
        checkpoints = (await server.http.get(f"{JOBS}/{undisturbed}/checkpoints")).json()["data"]
        assert [one["step_number"] for one in checkpoints] == [2, 1]
        assert all(one["metrics"]["direction_score"] is not None for one in checkpoints)
        (file,) = job["result_files"]
        content = (await server.http.get(f"{FILES}/{file}/content")).text
        assert len(content.splitlines()) == 2 * 24 * 3
        assert {json.loads(line)["lineage"]["iteration"] for line in content.splitlines()} == {1, 2}

        job_id = await server.create(iterations=1)
        for step in ("sampling", "training"):
            await server.until(job_id, in_step(step))
            await server.ask(job_id, "pause")
            assert (await server.end(job_id))["status"] == "paused"
            assert not training_processes()
            # The policy itself answers as before.
            assert await chat(server, "tiny") == base
            await server.ask(job_id, "resume")
        assert (await server.end(job_id))["status"] == "succeeded"
        expected = selected_in(server.folder(undisturbed), 1)
        assert selected_in(server.folder(job_id), 1) == expected
        await end_once_more(server, undisturbed)


async def end_once_more(server: RunningServer, job_id: str) -> None:
    """Do again what a kill just before the end of a job was written would have left to do."""
    files = (await server.http.get(FILES)).json()["data"]
    before = await server.job(job_id)
    database = sqlite3.connect(server.state / "steerward.sqlite")
    with closing(database), database:
        database.execute("UPDATE jobs SET status = 'queued' WHERE id = ?", (job_id,))
    after = await server.end(job_id)
    assert after["status"] == "succeeded"
    # One file of results, the same.
    assert after["result_files"] == before["result_files"]
    assert (await server.http.get(FILES)).json()["data"] == files


def training_processes() -> list[int]:
    """Return the trainers that this process has started and that run."""
    return children_of("steerward.training.sft")


async def test_a_cancelled_job_leaves_nothing_served_and_its_checkpoints_listed(
    tmp_path: Path, policy_folder: str
) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create(iterations=9)
        name = f"ft:tiny:rsf:{job_id[-8:]}"

        def is_in_second(job: dict[str, Any]) -> bool:
            progress = job["progress"]
            return progress["iteration"] == 2 and progress["step"] == "training"

        await server.until(job_id, is_in_second)
        assert name in await server.models()
        await server.ask(job_id, "cancel")
        job = await server.end(job_id)
        assert (job["status"], job["fine_tuned_model"]) == ("cancelled", None)
        assert not training_processes()
        async with asyncio.timeout(60):
            while name in await server.models():
                await asyncio.sleep(0.01)
        checkpoints = (await server.http.get(f"{JOBS}/{job_id}/checkpoints")).json()["data"]
        assert [one["step_number"] for one in checkpoints] == [1]
        folder = Path(checkpoints[0]["fine_tuned_model_checkpoint"])
        assert (folder / "model.safetensors").is_file()
        assert not (server.folder(job_id) / "iteration-002" / "policy").exists()


async def test_a_reward_model_that_dies_pauses_the_job(tmp_path: Path, policy_folder: str) -> None:
    async with running_server(tmp_path / "state", policy_folder, patience_s=0.5) as server:
        job_id = await server.create(**LONG)
        await server.until(job_id, in_step("sampling", done=1))
        server.engines["armorm"].close()
        job = await server.end(job_id)
        assert (job["status"], job["error"]["code"]) == ("paused", "not_ready")
        assert "nothing was generated or scored" in job["error"]["message"]
        assert (await server.messages(job_id))[-1].endswith("resume it when that is mended")


async def test_other_weights_of_the_policy_end_the_job_clearly(tmp_path: Path) -> None:
    policy = save_policy(tmp_path / "tiny", rule=ARMORM_RULE)
    async with running_server(tmp_path / "state", policy) as server:
        job_id = await server.create(**LONG)
        await server.until(job_id, in_step("sampling", done=1))
    shutil.rmtree(policy)
    save_policy(policy, seed=1, rule=ARMORM_RULE)
    async with running_server(tmp_path / "state", policy) as server:
        job = await server.end(job_id)
        assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
        assert "weights of the policy of this server is not what" in job["error"]["message"]


async def test_a_full_disk_pauses_the_job_until_there_is_room(
    tmp_path: Path, policy_folder: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with small_disk(state / "jobs", megabytes=1) as disk:
        async with running_server(state, policy_folder) as server:
            ballast = disk / "ballast"
            job_id = await server.create(iterations=1, evaluation_prompts=0, **LONG)
            await server.until(job_id, in_step("sampling", done=1))
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(bytes(2 << 20))
            job = await server.end(job_id)
            assert (job["status"], job["error"]["code"]) == ("paused", "storage_full")
            assert not [*disk.rglob("*.building")]
            ballast.unlink()
            await server.ask(job_id, "resume")
            await server.until(job_id, in_step("sampling", done=17))
            await server.ask(job_id, "cancel")
            assert (await server.end(job_id))["status"] == "cancelled"


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """Give a file system of a few megabytes, where this process may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_two_servers_run_a_job_once_and_both_serve_what_it_made(
    tmp_path: Path, policy_folder: str
) -> None:
    state = tmp_path / "state"
    async with (
        running_server(state, policy_folder) as one,
        running_server(state, policy_folder) as other,
    ):
        job_id = await one.create(iterations=1, evaluation_prompts=0)
        job = await other.end(job_id)
        assert job["status"] == "succeeded"
        assert (await one.messages(job_id))[0] == "iteration 1: 24 of 72 selected"
        assert len(await one.messages(job_id)) == 4
        deadline = time.monotonic() + 60
        for server in (one, other):
            while job["fine_tuned_model"] not in await server.models():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            await chat(server, job["fine_tuned_model"])
