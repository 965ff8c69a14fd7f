"""Runs of MAPL from pairs to a model, stopped and gone on with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from steerward.models.checkpoint import load_reward_model as load_served
from steerward.models.packing import group_conversations
from steerward.protocol.errors import CheckpointRefused, DatasetRefused, SteerwardError
from steerward.training.align.mapl.data import TooFewRows
from steerward.training.align.mapl.evaluate import COLUMNS
from steerward.training.align.mapl.rows import read_inter_rows, read_intra_rows
from steerward.training.align.mapl.run import hold_out, train_mapl
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.rows import read_pairs
from steerward.training.align.run_folder import read_run
from tests.policies import save_policy

_KINDS = ["keywords:existence", "steerward:no_digits", "punctuation:no_comma"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base", positions=1024)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = random.Random(0)
    words = ["light", "water", "dogs", "jump", "5 times", "over,", "lazy", "drops.", "Fine!"]

    def response() -> str:
        return " ".join(order.sample(words, order.randint(2, 8)))

    rows = [
        {"prompt": f"Tell me {i}", "chosen": response() + " yes", "rejected": response() + " no"}
        for i in range(24)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _settings(base: Path, pairs: Path, out: Path, **changes: Any) -> MaplConfig:
    given = {
        "start": str(base),
        "pairs": [pairs],
        "out": out,
        "held_out_share": 0.25,
        "held_out_kinds": _KINDS,
        "min_instructions": 1,
        "max_instructions": 2,
        "min_rows_share": 0.0,
        "batch_size": 8,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "logging_steps": 1,
        "checkpoint_steps": 2,
        "evaluation_steps": 2,
    }
    return MaplConfig.model_validate(given | changes)


@pytest.fixture(scope="module")
def run(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_mapl(_settings(base, pairs, tmp_path_factory.mktemp("run") / "run"))


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_run_folder_holds_settings_log_evaluations_rows_and_model(run: Path) -> None:
    found = read_run(run)
    assert (found.settings.method, found.settings.objectives) == ("mapl", COLUMNS)
    assert [one.step for one in found.log] == [1, 2, 3, 4]
    logged = {name for one in found.log for name in one.metrics}
    assert logged >= {"loss", "preference/loss", "intra/loss", "inter/accuracy"}
    assert [one.step for one in found.evaluations] == [0, 2, 4]
    for one in found.evaluations:
        for name in COLUMNS:
            assert {0.0, 0.5, 1.0} >= {v for v in one.rewards[name] if v is not None}
    assert not (run / "checkpoints").exists()


def test_rows_are_in_files_and_hold_no_kind_that_is_held_out(run: Path) -> None:
    rows = run / "rows"
    for row in read_intra_rows(rows / "train-intra.jsonl"):
        assert not {one.kind for one in row.instructions_chosen} & set(_KINDS)
    for row in read_inter_rows(rows / "held-out-inter.jsonl"):
        assert {one.kind for one in row.instructions} <= set(_KINDS)
    learned, measured = (
        {row.prompt[0]["content"] for row in read_inter_rows(rows / f"{name}-inter.jsonl")}
        for name in ("train", "held-out")
    )
    assert learned
    assert measured
    assert not learned & measured


def test_model_is_served_with_the_rewards_of_training(run: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    served = load_served(run / "model", device="cpu", dtype="float32")
    conversation = served.encode([{"role": "user", "content": "Who?"}], ["Me, 5 times."])
    rewards = served.score(group_conversations(conversation)).rewards_NK
    expected = model(torch.tensor([conversation[0].ids])).logits
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-5)


def test_finished_run_is_returned_as_it_is(base: Path, pairs: Path, run: Path) -> None:
    before = (run / "log.jsonl").stat().st_mtime_ns
    assert train_mapl(_settings(base, pairs, run)) == run
    assert (run / "log.jsonl").stat().st_mtime_ns == before


def test_stopped_run_goes_on_and_ends_with_the_same_weights(
    base: Path, pairs: Path, run: Path, tmp_path: Path
) -> None:
    def stop(step: int, numbers: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    settings = _settings(base, pairs, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train_mapl(settings, told=stop)
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-2").is_dir()
    train_mapl(settings)
    torch.testing.assert_close(_weights(tmp_path / "run"), _weights(run), rtol=0, atol=0)
    again, whole = read_run(tmp_path / "run"), read_run(run)
    assert [one.step for one in again.log] == [1, 2, 3, 4]
    assert again.evaluations == whole.evaluations


def test_folder_of_another_run_is_refused(base: Path, pairs: Path, run: Path) -> None:
    with pytest.raises(CheckpointRefused, match="other settings"):
        train_mapl(_settings(base, pairs, run, learning_rate=2e-3))


def test_a_refused_run_may_come_again_with_other_settings(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    """Its settings were kept before its batch was looked at."""
    out = tmp_path / "run"
    with pytest.raises(SteerwardError, match="fewer than batch_size"):
        train_mapl(_settings(base, pairs, out, batch_size=512))
    assert train_mapl(_settings(base, pairs, out, max_steps=1)) == out


def test_what_is_told_of_rows_is_of_what_is_learned(run: Path) -> None:
    told: Any = read_run(run).settings.model_extra
    rows = run / "rows"
    assert told["rows"] == {
        "preference": told["pairs"]["learned"],
        "intra": len(read_intra_rows(rows / "train-intra.jsonl")),
        "inter": len(read_inter_rows(rows / "train-inter.jsonl")),
    }


def test_weights_of_0_leave_plain_bradley_terry(base: Path, pairs: Path, tmp_path: Path) -> None:
    settings = _settings(base, pairs, tmp_path / "run", lambda_intra=0, lambda_inter=0)
    log = read_run(train_mapl(settings)).log
    assert all("intra/loss" not in one.metrics for one in log)
    assert all(
        one.metrics["loss"] == pytest.approx(one.metrics["preference/loss"], rel=1e-4)
        for one in log
    )


def test_adapter_is_merged(base: Path, pairs: Path, tmp_path: Path) -> None:
    run = train_mapl(_settings(base, pairs, tmp_path / "run", method="lora", max_steps=2))
    found = _weights(run)
    assert not any("lora" in name for name in found)
    start = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(found[name], start[name])
    assert torch.equal(found["model.embed_tokens.weight"], start["model.embed_tokens.weight"])


def test_reward_model_keeps_its_head(base: Path, pairs: Path, run: Path, tmp_path: Path) -> None:
    settings = _settings(run / "model", pairs, tmp_path / "run", max_steps=1, learning_rate=1e-9)
    again = _weights(train_mapl(settings))
    torch.testing.assert_close(again["score.weight"], _weights(run)["score.weight"])


def test_too_few_rows_are_refused_before_training(base: Path, pairs: Path, tmp_path: Path) -> None:
    settings = _settings(base, pairs, tmp_path / "run", min_rows_share=1.0, min_instructions=2)
    with pytest.raises(TooFewRows, match="of 18 pairs gave"):
        train_mapl(settings)


def test_prompts_are_held_out_whole(pairs: Path) -> None:
    rows = read_pairs(pairs)
    learned, measured = hold_out([*rows, *rows], share=0.25, seed=0)
    assert (len(learned), len(measured)) == (36, 12)
    assert not {str(one.messages) for one in learned} & {str(one.messages) for one in measured}
    with pytest.raises(DatasetRefused, match="held_out_share"):
        hold_out(rows[:2], share=0.1, seed=0)


def test_batch_that_is_larger_than_the_rows_is_refused(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(SteerwardError, match="fewer than batch_size 512"):
        train_mapl(_settings(base, pairs, tmp_path / "run", batch_size=512))
