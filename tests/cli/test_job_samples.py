"""``steerward jobs samples``: as they are, and as other trainers read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.cli.main import main
from steerward.config import ServeConfig
from steerward.jobs.rsf.export import dpo_pairs, result_rows, sft_rows
from steerward.jobs.rsf.samples import SampleRow
from steerward.policy.loading import load_policies
from steerward.policy.steering import SteeredPolicy
from steerward.protocol.conditioning import ConditioningRule
from tests.cli.conftest import JobServer
from tests.cli.test_jobs import Output, created, finished, run
from tests.jobs.rsf.test_export import a_sample, best
from tests.policies import RULE, save_policy


def test_samples_are_downloaded_to_a_file_or_printed(
    capfdbinary: pytest.CaptureFixture[bytes],
    job_server: JobServer,
    prompts: Path,
    tmp_path: Path,
) -> None:
    main(["jobs", "create", str(prompts), "--model", "pocket-policy", "--no-watch"])
    job_id = capfdbinary.readouterr().out.decode().strip()
    assert main(["jobs", "samples", job_id]) == 1
    assert b"is queued and has no result file" in capfdbinary.readouterr().err
    rows = b'{"prompt": "a"}\n' * 10_000
    written = tmp_path / "written"
    written.write_bytes(rows)
    result = job_server.files.add_result(written, filename="samples.jsonl", rows=10_000)
    finished(job_server, job_id, status="succeeded", result_files=[result.id])
    assert main(["jobs", "samples", job_id]) == 0
    assert capfdbinary.readouterr().out == rows
    out = tmp_path / "out.jsonl"
    assert main(["jobs", "samples", job_id, "--out", str(out)]) == 0
    assert out.read_bytes() == rows
    assert main(["jobs", "samples", job_id, "--out", "/absent/out.jsonl"]) == 1
    assert b"cannot write /absent/out.jsonl: No such file" in capfdbinary.readouterr().err
    assert not list(tmp_path.glob("*.part"))


@pytest.fixture
def ended_job(capsys: Output, job_server: JobServer, prompts: Path, tmp_path: Path) -> str:
    """A job with a winner and a loser."""
    job_id = created(capsys, prompts)
    written = tmp_path / "written"
    written.write_text("".join(json.dumps(row) + "\n" for row in result_rows(samples())))
    result = job_server.files.add_result(written, filename="samples.jsonl", rows=2)
    finished(job_server, job_id, status="succeeded", result_files=[result.id])
    return job_id


def samples() -> list[SampleRow]:
    return [best("good", 1.0), a_sample("worse", 0.0)]


def parsed(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_samples_become_pairs_and_conversations(
    capsys: Output, job_server: JobServer, ended_job: str, tmp_path: Path
) -> None:
    folder = save_policy(tmp_path / "pocket-policy")
    config = ServeConfig.model_validate({"policy": [str(folder)], "policy_device": "cpu"})
    (policy,) = load_policies(config, taken=[]).values()
    job_server.policies["pocket-policy"] = SteeredPolicy(policy, None)
    rule = ConditioningRule.model_validate(RULE)
    out, _ = run(capsys, "jobs", "samples", ended_job, "--format", "dpo")
    assert parsed(out) == list(dpo_pairs(samples(), rule))
    assert len(parsed(out)) == 1
    path = tmp_path / "sft.jsonl"
    run(capsys, "jobs", "samples", ended_job, "--format", "sft", "--out", str(path))
    assert parsed(path.read_text()) == list(sft_rows(samples(), rule))


def test_without_the_policy_its_words_are_not_known(
    capsys: Output, job_server: JobServer, ended_job: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.jsonl"
    arguments = ("jobs", "samples", ended_job, "--format", "dpo", "--out", str(path))
    _, err = run(capsys, *arguments, status=1)
    assert "has no policy 'pocket-policy' that reads directions" in err
    assert not list(tmp_path.glob("pairs*"))


def test_a_log_is_downloaded_and_is_no_samples(
    capsys: Output, job_server: JobServer, prompts: Path, tmp_path: Path
) -> None:
    job_id = created(capsys, prompts, "--method", "grpo")
    written = tmp_path / "written"
    written.write_text('{"kind": "step", "step": 1, "metrics": {"loss": 0.5}}\n')
    expected = written.read_text()
    result = job_server.files.add_result(written, filename="log.jsonl", rows=1, holds="metrics")
    finished(job_server, job_id, status="succeeded", result_files=[result.id])
    assert run(capsys, "jobs", "samples", job_id)[0] == expected
    _, err = run(capsys, "jobs", "samples", job_id, "--format", "dpo", status=1)
    assert "keeps no samples, but its log; take --format results" in err
