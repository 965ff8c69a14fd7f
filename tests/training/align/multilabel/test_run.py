"""A small multi-label model: it learns what is planted, is served, and survives a kill."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import group_conversations
from steerward.protocol.errors import CheckpointRefused, InvalidRequest
from steerward.training.align.multilabel.run import train_multilabel
from steerward.training.align.multilabel.settings import MultiLabelConfig
from tests.policies import save_policy
from tests.training.conftest import write_rows

WORDS = {"warm": ("fox", "dog"), "exact": ("light", "drops")}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "start")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 responses with two labels: how many words of a kind they hold; often one is missing."""
    draw = random.Random(0)
    made: list[dict[str, Any]] = []
    for i in range(400):
        counts = {name: draw.randint(0, 3) for name in WORDS}
        words = [draw.choice(WORDS[name]) for name, count in counts.items() for _ in range(count)]
        words += ["how", "are", "you"][: draw.randint(1, 3)]
        draw.shuffle(words)
        labels: dict[str, float | None] = {"warm": float(counts["warm"])}
        labels["exact"] = None if i % 3 == 0 else counts["exact"] / 3
        made.append({"prompt": f"Tell me {i % 100}", "response": " ".join(words), "labels": labels})
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", made)


def settings_of(start: Path, rows: Path, out: Path, **changes: Any) -> MultiLabelConfig:
    values: dict[str, Any] = {
        "start": str(start),
        "data": [rows],
        "out": out,
        "epochs": 8,
        "learning_rate": 3e-3,
        "head_learning_rate": 1e-2,
        "balance_labels": True,
        "validation_share": 0.2,
    }
    return MultiLabelConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, start: Path, rows: Path
) -> tuple[Path, dict[str, Any], list[Mapping[str, float]]]:
    out = tmp_path_factory.mktemp("model") / "trained"
    told: list[Mapping[str, float]] = []
    report = train_multilabel(
        settings_of(start, rows, out, checkpoint_steps=40), told=lambda _, logs: told.append(logs)
    )
    return out, report, told


def test_planted_labels_are_recovered(
    trained: tuple[Path, dict[str, Any], list[Mapping[str, float]]],
) -> None:
    out, report, told = trained
    assert report["objectives"] == ["exact", "warm"]
    for fit in report["held_out"].values():
        assert fit["r2"] > 0.6
        assert fit["spearman"] > 0.75
    assert report["held_out"]["exact"]["count"] < report["held_out"]["warm"]["count"]
    assert json.loads((out / "report.json").read_text()) == report
    assert "| warm |" in (out / "README.md").read_text()
    assert not out.with_name("trained.checkpoints").exists()
    measured = [logs for logs in told if "eval_loss" in logs]
    assert {"eval_warm/r2", "eval_exact/r2", "eval_exact/spearman"} < set(measured[-1])
    # At every checkpoint and after the last step, each once.
    assert len(measured) == -(-report["steps"] // 40)


def test_result_is_served_with_names_and_the_rewards_of_transformers(
    trained: tuple[Path, dict[str, Any], list[Mapping[str, float]]],
) -> None:
    out, report, _ = trained
    served = load_reward_model(out, device="cpu")
    assert served.objectives.names == ("exact", "warm")
    answers = ["fox dog fox how", "light"]
    conversations = served.encode([{"role": "user", "content": "Tell me"}], answers)
    rewards_NK = served.score(group_conversations(conversations)).rewards_NK
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.problem_type == "regression"
    assert model.config.calibration == report["calibration"]
    for n, conversation in enumerate(conversations):
        logits_K = model(torch.tensor([conversation.ids])).logits[0]
        torch.testing.assert_close(rewards_NK[n], logits_K, atol=1e-5, rtol=1e-5)
    assert rewards_NK[0, 1] > rewards_NK[1, 1] + 1.0


class Killed(Exception):
    """Stands for what ends a process."""


def test_run_that_was_broken_off_ends_with_the_same_weights(
    start: Path, rows: Path, tmp_path: Path
) -> None:
    few = {"epochs": 1, "checkpoint_steps": 4, "logging_steps": 1}
    whole = settings_of(start, rows, tmp_path / "whole", **few)
    train_multilabel(whole)

    def kill(step: int, logs: Mapping[str, float]) -> None:
        if step == 6 and "loss" in logs:
            raise Killed

    broken = settings_of(start, rows, tmp_path / "broken", **few)
    with pytest.raises(Killed):
        train_multilabel(broken, told=kill)
    steps: list[int] = []
    train_multilabel(broken, told=lambda step, _: steps.append(step))
    assert min(steps) == 5
    ours, theirs = (load_file(s.out / "model.safetensors") for s in (broken, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_small_parts_of_a_step_change_nothing(start: Path, rows: Path, tmp_path: Path) -> None:
    few = {"epochs": 1, "learning_rate": 1e-4}
    settings = [
        settings_of(start, rows, tmp_path / str(micro), micro_batch_size=micro, **few)
        for micro in (None, 4)
    ]
    reports = [train_multilabel(one) for one in settings]
    for name, fit in reports[0]["held_out"].items():
        assert reports[1]["held_out"][name]["r2"] == pytest.approx(fit["r2"], abs=1e-3)


def test_settings_that_do_not_fit_are_refused_before_training(
    start: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="label_weights name cold; the labels are exact, warm"):
        train_multilabel(settings_of(start, rows, tmp_path / "a", label_weights={"cold": 2.0}))
    with pytest.raises(InvalidRequest, match="no multiple of micro_batch_size 5"):
        train_multilabel(settings_of(start, rows, tmp_path / "b", micro_batch_size=5))
    with pytest.raises(CheckpointRefused, match="exists already"):
        train_multilabel(settings_of(start, rows, tmp_path))
