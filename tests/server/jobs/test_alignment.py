"""Jobs of the optimisers for several objectives, on a whole server with a real trainer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.children import children_of
from tests.policies import save_policy
from tests.rsf_jobs import prompt_lines
from tests.server.jobs.running import FILES, JOBS, RunningServer, running_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_environment")]

TINY: dict[str, Any] = {
    "weights": {"objective_0": 1.0, "objective_1": -0.5},
    "logged": ["score"],
    "steps": 4,
    "prompts_per_step": 2,
    "group_size": 2,
    "max_tokens": 6,
    "checkpoint_steps": 1,
    "evaluation_prompts": 2,
    "evaluation_steps": 2,
    "learning_rate": 1e-3,
}
"""Of a run that takes seconds."""


async def chat(server: RunningServer, model: str) -> str:
    """Return which weights answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answer = await server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["system_fingerprint"]


def processes() -> list[int]:
    return children_of("steerward.training.align.process")


def has_done(steps: int) -> Callable[[dict[str, Any]], bool]:
    return lambda job: job["progress"]["done"] >= steps


async def test_a_job_becomes_a_policy_that_is_served(tmp_path: Path, policy_folder: str) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        base = await chat(server, "tiny")
        job_id = await server.create_of("pama", {**TINY, "steps": 8}, content=prompt_lines(40))
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        told = await server.messages(job_id)
        assert "held-out prompts after step 8" in told
        assert any("loss" in message for message in told)
        await is_told_and_served(server, job, base)
        assert not leftovers(server, job_id)


async def test_a_job_is_killed_paused_resumed_and_cancelled(
    tmp_path: Path, policy_folder: str
) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of("pama", {**TINY, "steps": 999}, content=prompt_lines(40))
        await server.until(job_id, has_done(2))
        for process in processes():
            os.kill(process, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not any("killed by signal 9" in told for told in await server.messages(job_id)):
                await asyncio.sleep(0.01)
        await server.until(job_id, has_done(4))
        await server.ask(job_id, "pause")
        job = await server.end(job_id)
        assert job["status"] == "paused"
        done = job["progress"]["done"]
        assert job["progress"]["total"] == 999
        assert not processes()
        assert leftovers(server, job_id)
        await server.ask(job_id, "resume")
        await server.until(job_id, has_done(done + 1))
        await server.ask(job_id, "cancel")
        assert (await server.end(job_id))["status"] == "cancelled"
        assert not processes()
        async with asyncio.timeout(60):
            while leftovers(server, job_id):
                await asyncio.sleep(0.01)


def leftovers(server: RunningServer, job_id: str) -> list[str]:
    """Return what is there that a job needs until its end."""
    names = ("rows", "run/checkpoints")
    return [name for name in names if (server.folder(job_id) / name).exists()]


async def is_told_and_served(server: RunningServer, job: dict[str, Any], base: str) -> None:
    name = job["fine_tuned_model"]
    assert name == f"ft:tiny:pama:{job['id'][-8:]}"
    assert name in await server.models()
    assert await chat(server, name) != base
    assert await chat(server, "tiny") == base
    assert job["method"]["pama"]["seed"] == job["seed"] == 5
    assert job["trained_tokens"] > 0
    history = job["progress"]["history"]
    assert [one["iteration"] for one in history] == [0, 2, 4, 6, 8]
    assert set(history[0]["rewards"]) == {"objective_0", "less_objective_1", "score"}
    (checkpoint,) = (await server.http.get(f"{JOBS}/{job['id']}/checkpoints")).json()["data"]
    assert checkpoint["step_number"] == 8
    assert checkpoint["metrics"] == history[-1]["rewards"]
    (file,) = job["result_files"]
    found = (await server.http.get(f"{FILES}/{file}")).json()
    assert (found["holds"], found["rows"]) == ("metrics", 8 + 5)
    content = (await server.http.get(f"{FILES}/{file}/content")).text
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == [*range(1, 9)]
    assert [row["step"] for row in rows if row["kind"] == "evaluation"] == [0, 2, 4, 6, 8]


async def test_jobs_that_could_not_run_are_refused_with_their_place(
    tmp_path: Path, policy_folder: str
) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        file = await server.upload(prompt_lines(4))

        async def refusal(method: str, settings: dict[str, Any]) -> tuple[str, str]:
            body = {
                "model": "tiny",
                "training_file": file,
                "method": {"type": method, method: {"max_tokens": 8, **settings}},
            }
            answer = await server.http.post(JOBS, json=body)
            assert answer.status_code == 422, answer.text
            return answer.json()["error"]["code"], answer.json()["error"]["param"]

        judges = {"tasks": {"chat": {"judges": [{"type": "code_tests"}]}}}
        for method, settings, code, place in (
            ("pama", {"weights": {"honesty": 1.0}}, "unknown_objective", "weights"),
            ("grpo", {"logged": ["honesty"]}, "unknown_objective", "logged"),
            ("cgpo", {"logged": ["score", "score"]}, "invalid_request", "logged"),
            ("grpo", {"max_tokens": 256}, "invalid_request", "max_tokens"),
            ("cgpo", judges, "invalid_request", "tasks.chat.judges[0].type"),
        ):
            assert await refusal(method, settings) == (code, f"method.{method}.{place}")
        unknown = {"reward_model": "other", "max_tokens": 8}
        body = {"model": "tiny", "training_file": file, "method": {"type": "pama", "pama": unknown}}
        answer = await server.http.post(JOBS, json=body)
        assert answer.json()["error"]["param"] == "method.pama.reward_model"


async def test_a_policy_that_reads_no_directions_is_aligned_and_not_sampled_for_them(
    tmp_path: Path,
) -> None:
    policy = save_policy(tmp_path / "tiny", rule=None)
    async with running_server(tmp_path / "state", policy) as server:
        settings = {**TINY, "steps": 1, "evaluation_prompts": 0, "method": "lora"}
        job_id = await server.create_of("grpo", settings, content=prompt_lines(4))
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        assert job["progress"]["history"] == []
        await chat(server, job["fine_tuned_model"])
        body = {"model": "tiny", "training_file": job["training_file"], "method": {"type": "rsf"}}
        answer = await server.http.post(JOBS, json=body)
        assert answer.status_code == 422
        assert "reads no directions, which method rsf needs" in answer.json()["error"]["message"]


async def test_a_reward_model_that_dies_pauses_the_job(tmp_path: Path, policy_folder: str) -> None:
    async with running_server(tmp_path / "state", policy_folder, patience_s=0.5) as server:
        job_id = await server.create_of("pama", {**TINY, "steps": 999}, content=prompt_lines(40))
        await server.until(job_id, lambda job: job["progress"]["done"] >= 1)
        server.engines["armorm"].close()
        job = await server.end(job_id)
        assert (job["status"], job["error"]["code"]) == ("paused", "not_ready")
        assert "nothing was generated or scored" in job["error"]["message"]
        assert not processes()


async def test_judges_hold_a_job_of_cgpo(tmp_path: Path, policy_folder: str) -> None:
    settings = {name: value for name, value in TINY.items() if name not in ("weights", "logged")}
    tasks = {
        "chat": {"reward": "objective_0", "judges": [{"type": "length", "maximum": 1000}]},
        "maths": {"reward": "score", "optimizer": "crraft"},
    }
    rows = [
        {"prompt": f"Tell me {place}.", "task": ("chat", "maths")[place % 2]} for place in range(40)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of(
            "cgpo", {**settings, "steps": 2, "tasks": tasks}, content=content
        )
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        assert {"objective_0", "score", "satisfied"} <= set(
            job["progress"]["history"][-1]["rewards"]
        )


async def test_preferences_become_a_policy_by_modpo(tmp_path: Path, policy_folder: str) -> None:
    rows = [
        {"prompt": f"Tell me {place}.", "chosen": f"The fox {place}.", "rejected": "Numbers."}
        for place in range(24)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    settings = {
        "margins": {"objective_0": -0.5},
        "batch_size": 8,
        "max_tokens": 6,
        "evaluation_prompts": 2,
        "learning_rate": 1e-3,
    }
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of("modpo", settings, content=content)
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        assert job["fine_tuned_model"] == f"ft:tiny:modpo:{job_id[-8:]}"
        assert job["progress"]["done"] == job["progress"]["total"] == 3
        assert await chat(server, job["fine_tuned_model"]) != await chat(server, "tiny")
        assert [one["iteration"] for one in job["progress"]["history"]] == [0, 3]


async def test_preferences_become_a_policy_that_follows_instructions_by_mapl(
    tmp_path: Path, policy_folder: str
) -> None:
    rows = [
        {"prompt": f"Tell me {i}.", "chosen": f"the fox, and {i}.", "rejected": f"No! Dogs {i} and"}
        for i in range(24)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    settings = {
        "logged": ["objective_0"],
        "min_instructions": 1,
        "max_instructions": 1,
        "batch_size": 32,
        "max_tokens": 6,
        "evaluation_prompts": 2,
        "learning_rate": 1e-3,
    }
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of("mapl", settings, content=content)
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        assert job["fine_tuned_model"] == f"ft:tiny:mapl:{job_id[-8:]}"
        assert await chat(server, job["fine_tuned_model"]) != await chat(server, "tiny")
        history = job["progress"]["history"]
        assert [one["iteration"] for one in history] == [0, job["progress"]["total"]]
        assert set(history[0]["rewards"]) == {"objective_0", "instructions_followed"}
        for wrong, code, place, words in (
            ({"logged": ["honesty"]}, "unknown_objective", ".logged", "honesty"),
            ({"held_out_kinds": ["magic"]}, "invalid_request", ".held_out_kinds", "'magic'"),
            ({"held_out_kinds_share": 0.99}, "invalid_request", "", "hold out fewer"),
        ):
            body = {
                "model": "tiny",
                "training_file": job["training_file"],
                "method": {"type": "mapl", "mapl": {"max_tokens": 6, **wrong}},
            }
            answer = await server.http.post(JOBS, json=body)
            assert answer.status_code == 422, answer.text
            error = answer.json()["error"]
            assert (error["code"], words in error["message"]) == (code, True)
            assert error["param"].startswith(f"method.mapl{place}")


async def test_a_job_that_asks_for_no_rewards_is_bound_to_no_reward_model(
    tmp_path: Path, policy_folder: str
) -> None:
    """It could not go on when the reward model's weights were exchanged."""
    rows = [
        {"prompt": f"Tell me {i}.", "chosen": f"the fox, and {i}.", "rejected": f"No! Dogs {i} and"}
        for i in range(8)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    settings = {"min_instructions": 1, "max_instructions": 1, "max_tokens": 6, "batch_size": 8}
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of("mapl", settings, content=content)
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        origin = json.loads((server.folder(job_id) / "origin.json").read_text())
        assert origin["policy"] == "tiny"
        assert origin["reward_model"] is origin["reward_weight_version"] is None
        # What was built of the user's rows goes with them.
        assert not (server.folder(job_id) / "run" / "rows").exists()


async def test_margins_of_the_rows_need_no_reward_model_that_knows_them(
    tmp_path: Path, policy_folder: str
) -> None:
    pair = {"chosen": "The fox.", "rejected": "Numbers.", "margin_chosen": 1, "margin_rejected": 0}
    content = "".join(
        json.dumps({"prompt": f"Tell me {place}.", **pair}) + "\n" for place in range(8)
    ).encode()
    settings = {"margins": {"brevity": 0.5}, "logged": ["objective_0"], "batch_size": 8}
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create_of("modpo", {**settings, "max_tokens": 6}, content=content)
        job = await server.end(job_id)
        assert job["status"] == "succeeded", job
        two = {"margins": {"brevity": 0.5, "wit": 0.5}, "max_tokens": 6}
        body = {
            "model": "tiny",
            "training_file": job["training_file"],
            "method": {"type": "modpo", "modpo": two},
        }
        answer = await server.http.post(JOBS, json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "method.modpo.margins"
