"""``steerward jobs`` and ``steerward files`` against the real routes and the real store."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from steerward.cli.main import main
from steerward.config import ServeConfig
from steerward.policy.loading import load_policies
from steerward.policy.steering import SteeredPolicy
from steerward.protocol.fine_tuning import IterationProgress, JobError, JobProgress
from tests.cli.conftest import OWNER, JobServer, until
from tests.policies import save_policy

Output = pytest.CaptureFixture[str]


def run(capsys: Output, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run a command, check its exit status, and return what it printed."""
    capsys.readouterr()
    done = main(arguments)
    printed = capsys.readouterr()
    assert done == status, printed
    return printed.out, printed.err


def created(capsys: Output, prompts: Path, *options: str) -> str:
    model = ("--model", "pocket-policy")
    out, _ = run(capsys, "jobs", "create", str(prompts), *model, "--no-watch", *options)
    return out.strip()


def names_of_files(server: JobServer) -> list[str]:
    found, _ = server.files.list(purpose=None, after=None, limit=10, newest_first=False)
    return [file.filename for file in found]


def test_created_job_has_what_was_typed(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    settings = '{"temperature": 0.5, "iterations": 9, "training": {"epochs": 2}}'
    flags = ("--iterations", "2", "--directions", "4", "--seed", "7", "--suffix", "brief")
    held_out = prompts.with_name("held-out.jsonl")
    held_out.write_text('{"prompt": "What now?"}\n')
    job_id = created(capsys, prompts, "--rsf", settings, *flags, "--validation-file", str(held_out))
    job = job_server.store.get(job_id).wire()
    used = job.method["rsf"]
    assert (used["temperature"], used["iterations"], used["directions"]) == (0.5, 2, 4)
    assert used["training"]["epochs"] == 2
    assert job.seed == 7
    assert job.training_file != job.validation_file
    assert names_of_files(job_server) == ["prompts.jsonl", "held-out.jsonl"]


def test_other_methods_take_their_settings_as_json(
    capsys: Output, job_server: JobServer, prompts: Path, tmp_path: Path
) -> None:
    settings = '{"weights": {"helpfulness": 1, "verbosity": -0.5}, "steps": 7}'
    job_id = created(capsys, prompts, "--method", "pama", "--settings", settings, "--seed", "3")
    job = job_server.store.get(job_id).wire()
    assert (job.method["type"], job.method["pama"]["steps"], job.seed) == ("pama", 7, 3)
    out, _ = run(capsys, "jobs", "show", job_id)
    assert "weights.verbosity" in out
    assert "pama" in out
    out, _ = run(capsys, "jobs", "list")
    assert "0/0 steps" in out
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    modpo = ("--method", "modpo", "--settings", '{"margins": {"safety": 1}}')
    made = job_server.store.get(created(capsys, pairs, *modpo))
    assert made.method == "modpo"
    assert job_server.store.get(created(capsys, pairs, "--method", "mapl")).method == "mapl"


def test_settings_of_rejection_sampling_are_given_either_way(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    both = ("--rsf", '{"temperature": 0.5, "iterations": 9}', "--settings", '{"iterations": 3}')
    used = job_server.store.get(created(capsys, prompts, *both)).wire().method["rsf"]
    assert (used["temperature"], used["iterations"]) == (0.5, 3)


def test_uploaded_file_is_used_by_its_id(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    out, err = run(capsys, "files", "upload", str(prompts))
    assert "12 rows: prompts" in err
    job_id = created(capsys, Path(out.strip()))
    assert job_server.store.get(job_id).wire().training_file == out.strip()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--iterations", "0"), "iterations: Input should be greater than or equal to 1"),
        (("--rsf", '{"iteration": 1}'), "iteration: unknown key"),
        (("--rsf", '{"selection": "top_k"}'), "needs top_k"),
        (("--suffix", "a b"), "suffix"),
        (("--method", "pama", "--iterations", "2"), "--iterations: of method rsf, and the method"),
        (("--method", "pama", "--settings", '{"step": 1}'), "step: unknown key"),
        (("--method", "modpo"), "method.modpo.margins: Field required"),
        (
            ("--method", "mapl", "--settings", '{"held_out_kinds": ["magic"]}'),
            "no kind of instruction 'magic'",
        ),
    ],
)
def test_wrong_settings_are_told_before_anything_is_sent(
    capsys: Output, job_server: JobServer, prompts: Path, options: tuple[str, ...], words: str
) -> None:
    _, err = run(capsys, "jobs", "create", str(prompts), *options, status=1)
    assert words in err
    assert names_of_files(job_server) == []


def test_files_of_a_refused_job_are_deleted(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    options = ("--model", "pocket-policy", "--validation-file", "file-0")
    _, err = run(capsys, "jobs", "create", str(prompts), *options, status=1)
    assert "there is no file 'file-0'" in err
    assert names_of_files(job_server) == []


def test_bad_rows_and_absent_files_are_told(
    capsys: Output, job_server: JobServer, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"}\n{"question": "b"}\n')
    _, err = run(capsys, "files", "upload", str(bad), status=1)
    assert "question" in err
    _, err = run(capsys, "files", "upload", str(tmp_path / "absent"), status=1)
    assert err == f"steerward: cannot read {tmp_path / 'absent'}: No such file or directory\n"


def test_server_without_a_policy_is_told(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    _, err = run(capsys, "jobs", "create", str(prompts), status=1)
    assert "has no policy to fine-tune; start it with --policy" in err


def test_policy_is_the_only_one_of_the_server_unless_it_is_named(
    capsys: Output, job_server: JobServer, prompts: Path, tmp_path: Path
) -> None:
    folder = save_policy(tmp_path / "tiny")
    config = ServeConfig(policy=[str(folder)], policy_device="cpu", adapter=[])
    (policy,) = load_policies(config).values()
    steered = SteeredPolicy(policy, None)
    job_server.policies["tiny"] = steered
    job_id = run(capsys, "jobs", "create", str(prompts), "--no-watch")[0].strip()
    assert job_server.store.get(job_id).wire().model == "tiny"
    job_server.policies["other"] = steered
    _, err = run(capsys, "jobs", "create", str(prompts), status=1)
    assert "the server has 2 policies; name one with --model: tiny, tiny" in err


def test_created_job_is_watched_to_its_end(
    capsys: Output, job_server: JobServer, prompts: Path, tmp_path: Path
) -> None:
    config = tmp_path / "rsf.toml"
    config.write_text('model = "pocket-policy"\n[rsf]\ntemperature = 0.75\n')

    def work() -> None:
        until(lambda: job_server.store.list(after=None, limit=1)[0])
        (record,), _ = job_server.store.list(after=None, limit=1)
        finished(job_server, record.id, status="succeeded", fine_tuned_model="better")

    worker = threading.Thread(target=work)
    worker.start()
    out, _ = run(capsys, "jobs", "create", str(prompts), "--config", str(config))
    worker.join()
    job_id, *lines = out.splitlines()
    assert job_server.store.get(job_id).wire().method["rsf"]["temperature"] == 0.75
    assert lines[0].endswith("the end")
    assert lines[1] == f"job {job_id} succeeded: the new policy is better"


def test_list_is_a_table_or_json(capsys: Output, job_server: JobServer, prompts: Path) -> None:
    first, second = created(capsys, prompts), created(capsys, prompts)
    out, _ = run(capsys, "jobs", "list")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        [second, "queued"],
        [first, "queued"],
    ]
    out, err = run(capsys, "jobs", "list", "--json", "--limit", "1")
    assert [job["id"] for job in json.loads(out)["data"]] == [second]
    _, err = run(capsys, "jobs", "list", "--limit", "1")
    assert "there are more" in err


def test_show_tells_progress_and_all_settings(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    job_id = created(capsys, prompts, "--rsf", '{"training": {"method": "lora"}}')
    job_server.start(job_id)
    history = [IterationProgress(iteration=1, sampled=64, rewards={"helpfulness": 0.5})]
    progress = JobProgress(
        step="sampling", iteration=1, iterations=3, done=8, total=256, history=history
    )
    job_server.store.save_progress(job_id, OWNER, progress, estimated_finish=None)
    job_server.store.add_event(job_id, "sampling began")
    out, _ = run(capsys, "jobs", "show", job_id)
    assert "8/256 prompts" in out
    assert "sampling began" in out
    values = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert values["training.method"] == ["lora"]
    assert values["candidates_per_prompt"] == ["8"]
    assert "\x1b" not in out
    out, _ = run(capsys, "jobs", "show", job_id, "--json")
    assert json.loads(out)["progress"]["done"] == 8


def test_job_is_paused_resumed_and_cancelled(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    job_id = created(capsys, prompts)
    out, err = run(capsys, "jobs", "pause", job_id)
    assert out == f"job {job_id} is paused\n"
    assert f"steerward jobs resume {job_id} --server {job_server.url}" in err
    out, _ = run(capsys, "jobs", "resume", job_id)
    assert out == f"job {job_id} is queued\n"
    job_server.start(job_id)
    out, _ = run(capsys, "jobs", "cancel", job_id)
    assert out == f"job {job_id} is running, and asked to cancel\n"
    job_server.store.finish(job_id, OWNER, status="cancelled")
    _, err = run(capsys, "jobs", "resume", job_id, status=1)
    assert "it can be neither paused, resumed nor cancelled" in err


def test_events_are_lines_in_the_order_of_time(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    job_id = created(capsys, prompts)
    for number in range(250):
        job_server.store.add_event(job_id, f"number {number}")
    out, _ = run(capsys, "jobs", "events", job_id, "--limit", "230")
    lines = out.splitlines()
    assert len(lines) == 230
    assert lines[0].endswith(" info  number 20")
    assert lines[-1].endswith(" info  number 249")


def finished(server: JobServer, job_id: str, **outcome: Any) -> None:
    server.start(job_id)
    server.store.add_event(job_id, "the end")
    server.store.finish(job_id, OWNER, **outcome)


def test_watching_a_job_that_succeeded_names_the_policy(
    capsys: Output, job_server: JobServer, prompts: Path
) -> None:
    job_id = created(capsys, prompts)
    finished(job_server, job_id, status="succeeded", fine_tuned_model="better")
    out, _ = run(capsys, "jobs", "watch", job_id)
    assert out.splitlines()[0].endswith(" info  the end")
    assert f"job {job_id} succeeded: the new policy is better" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "failed: engine_failure: no memory"),
        ("paused", "paused itself: engine_failure: no memory"),
        ("cancelled", "cancelled"),
    ],
)
def test_watching_a_job_that_did_not_succeed_has_status_one(
    capsys: Output, job_server: JobServer, prompts: Path, status: str, words: str
) -> None:
    job_id = created(capsys, prompts)
    error = JobError(code="engine_failure", message="no memory")
    error = None if status == "cancelled" else error
    finished(job_server, job_id, status=status, error=error)
    _, err = run(capsys, "jobs", "watch", job_id, status=1)
    assert f"steerward: job {job_id} {words}" in err
    assert ("steerward jobs resume" in err) == (status == "paused")


def test_checkpoints_are_listed(capsys: Output, job_server: JobServer, prompts: Path) -> None:
    job_id = created(capsys, prompts)
    job_server.store.add_checkpoint(
        job_id, folder="/w/1", step_number=1, metrics={"kl": 0.25}, weight_version="w1"
    )
    out, _ = run(capsys, "jobs", "checkpoints", job_id)
    assert out.splitlines()[1].split() == ["1", "w1", "kl=0.250", "/w/1"]


def test_files_are_listed_and_deleted(capsys: Output, job_server: JobServer, prompts: Path) -> None:
    out, _ = run(capsys, "files", "upload", str(prompts))
    file_id = out.strip()
    out, _ = run(capsys, "files", "list")
    assert out.splitlines()[1].split()[:4] == [file_id, "prompts.jsonl", "prompts", "12"]
    out, _ = run(capsys, "files", "list", "--json")
    assert json.loads(out)["data"][0]["id"] == file_id
    out, _ = run(capsys, "files", "delete", file_id)
    assert out == f"{file_id} is deleted\n"
    assert names_of_files(job_server) == []


@pytest.mark.parametrize("command", ["show", "watch", "events", "cancel", "samples", "checkpoints"])
def test_unknown_job_is_told(capsys: Output, job_server: JobServer, command: str) -> None:
    _, err = run(capsys, "jobs", command, "ftjob-absent", status=1)
    assert "ftjob-absent" in err
    assert "\n" not in err.strip()


def test_server_may_be_written_with_its_version(capsys: Output, job_server: JobServer) -> None:
    out, _ = run(capsys, "jobs", "list", "--json", "--server", f"{job_server.url}/v1/")
    assert json.loads(out)["data"] == []


def test_wrong_key_is_told(capsys: Output, job_server: JobServer) -> None:
    _, err = run(capsys, "jobs", "list", "--api-key", "wrong", status=1)
    assert "valid API key" in err
