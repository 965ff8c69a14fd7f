"""The backbone learns from ratings and pairs, survives a kill, and is what is then embedded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from steerward.models.checkpoint import load_backbone
from steerward.models.packing import group_conversations
from steerward.models.plan import pack
from steerward.protocol.errors import CheckpointRefused, DatasetRefused
from steerward.training import backbone as backbone_module
from steerward.training.backbone import run_backbone
from steerward.training.config import BackboneConfig
from steerward.training.data.labels import load_objectives
from steerward.training.data.rows import PreferencePair, RatedResponse, load_rows
from steerward.training.mixture import Mixture, StepSampler
from steerward.training.multitask import MultiTaskModel
from tests.checkpoints import edit_config


@pytest.fixture
def settings(
    tiny_backbone: Path, rating_file: Path, pair_file: Path, objectives_file: Path, tmp_path: Path
) -> dict[str, Any]:
    return {
        "start": str(tiny_backbone),
        "ratings": [rating_file],
        "pairs": [pair_file],
        "objectives": objectives_file,
        "out": tmp_path / "base",
        "steps": 60,
        "pairs_per_step": 8,
        "rated_per_step": 16,
        "learning_rate": 1e-3,
        "head_learning_rate": 5e-3,
        "compute_dtype": "float32",
        "device": "cpu",
    }


def separation(folder: Path, pair_file: Path) -> float:
    """Return held-out pair accuracy of the best line through the last-token vectors."""
    from sklearn.linear_model import LogisticRegression

    backbone, chat = load_backbone(folder, device="cpu")
    vectors: dict[str, list[torch.Tensor]] = {"train": [], "test": []}
    with torch.inference_mode():
        for pair in load_rows([pair_file], PreferencePair):
            groups = group_conversations(chat.encode(pair.context, [pair.chosen, pair.rejected]))
            batch = pack(groups)
            chosen, rejected = backbone(batch)[batch.last_rows_N]
            vectors[pair.split].append(chosen - rejected)
    train, test = (torch.stack(vectors[split]).numpy() for split in ("train", "test"))
    fit = LogisticRegression(fit_intercept=False, C=0.01, max_iter=500)
    fit.fit([*train, *-train], [1] * len(train) + [0] * len(train))
    return float((fit.decision_function(test) > 0).mean())


def test_training_moves_preferences_into_the_hidden_states(
    settings: dict[str, Any], tiny_backbone: Path, pair_file: Path
) -> None:
    config = BackboneConfig(**settings)
    folder = run_backbone(config)
    before, after = (
        load_file(tiny_backbone / "model.safetensors"),
        load_file(folder / "model.safetensors"),
    )
    assert separation(folder, pair_file) >= separation(tiny_backbone, pair_file)
    key = "layers.0.mlp.up_proj.weight"
    assert not torch.allclose(before[key], after[key].float(), atol=1e-3)
    # Frozen embeddings are only rounded, and everything is stored as asked.
    embedding = "embed_tokens.weight"
    assert torch.equal(before[embedding].bfloat16(), after[embedding])
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert not list(folder.parent.glob("*.checkpoints"))
    with pytest.raises(CheckpointRefused, match="exists already"):
        run_backbone(config)


def to_train(config: BackboneConfig) -> tuple[MultiTaskModel, Mixture]:
    backbone, chat = load_backbone(config.start, device="cpu")
    mixture = Mixture(
        chat,
        load_rows(config.ratings, RatedResponse, split="train"),
        load_rows(config.pairs, PreferencePair, split="train"),
        load_objectives(config.objectives),
        max_tokens=256,
    )
    torch.manual_seed(0)
    shape: dict[str, Any] = {"num_objectives": 3, "num_raters": len(mixture.raters)}
    return MultiTaskModel(backbone, **shape, config=config, mask_token_id=3), mixture


def test_losses_fall(settings: dict[str, Any]) -> None:
    config = BackboneConfig(**{**settings, "language_weight": 0.1, "dropout": 0.0})
    model, mixture = to_train(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history: dict[str, list[float]] = {}
    for keys in StepSampler(mixture, config, rank=0, processes=1):
        outputs = model(**mixture.collate(keys))
        optimiser.zero_grad()
        outputs["loss"].backward()
        optimiser.step()
        for name, value in outputs.items():
            history.setdefault(name, []).append(float(value.detach()))
    losses = {"loss", "ratings", "gate", "category", "within", "language"}
    assert set(history) == losses | {"accuracy"}
    for name in ("loss", "ratings", "gate", "within", "language"):
        first, last = sum(history[name][:10]), sum(history[name][-10:])
        assert last < 0.9 * first, name


def test_held_out_losses_are_logged_without_changing_the_run(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings |= {"steps": 12, "weights_dtype": "float32", "checkpoint_steps": 4}
    silent = run_backbone(
        BackboneConfig(**{**settings, "out": tmp_path / "silent", "validation_steps": 0})
    )
    assert "eval_gate" not in capfd.readouterr().out
    logged = run_backbone(BackboneConfig(**{**settings, "validation_steps": 2}))
    printed = capfd.readouterr().out
    assert printed.count("eval_accuracy") >= 3
    before, after = (load_file(f / "model.safetensors") for f in (silent, logged))
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key


def test_run_of_nothing_is_refused_without_a_traceback(
    settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = BackboneConfig(**{**settings, "max_tokens": 8})
    with pytest.raises(CheckpointRefused, match="ended with status 1"):
        run_backbone(config)
    printed = capfd.readouterr().err
    assert "a training step would hold nothing" in printed
    assert "Traceback" not in printed
    with pytest.raises(DatasetRefused, match=r"absent\.jsonl cannot be read"):
        run_backbone(BackboneConfig(**{**settings, "ratings": [tmp_path / "absent.jsonl"]}))


def test_run_whose_fold_is_empty_is_not_validated(settings: dict[str, Any]) -> None:
    """Of a few prompts, a small share may be none."""
    options = {"validation_share": 1e-9, "steps": 4, "checkpoint_steps": 2}
    assert run_backbone(BackboneConfig(**{**settings, **options})).is_dir()


def test_dropout_is_of_hidden_states_and_not_of_attention(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Packed attention has none, and refuses to pretend."""
    folder = Path(shutil.copytree(settings["start"], tmp_path / "start"))
    edit_config(folder, attention_dropout=0.1)
    config = BackboneConfig(**{**settings, "start": str(folder), "steps": 2})
    assert run_backbone(config).is_dir()


def test_mask_needs_a_tokenizer_that_has_one(settings: dict[str, Any]) -> None:
    config = BackboneConfig(**{**settings, "masked_share": 0.1, "shifted_share": 0.5})
    backbone, _ = load_backbone(config.start, device="cpu")
    shape: dict[str, Any] = {"num_objectives": 3, "num_raters": 4, "config": config}
    with pytest.raises(CheckpointRefused, match="no mask token"):
        MultiTaskModel(backbone, **shape)


def test_noise_is_for_training_only(settings: dict[str, Any]) -> None:
    config = BackboneConfig(**{**settings, "masked_share": 0.3, "shifted_share": 0.5})
    model, mixture = to_train(config)
    (keys,) = StepSampler(mixture, config, rank=0, processes=1, steps=1)
    step = mixture.collate(keys)

    def losses() -> set[float]:
        return {float(model(**step)["loss"].detach()) for _ in range(3)}

    model.eval()
    assert len(losses()) == 1
    model.train()
    assert len(losses()) == 3


def test_killed_run_goes_on_to_the_same_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    """A run that is killed between checkpoints ends as one that was not."""
    settings["weights_dtype"] = "float32"
    straight = run_backbone(BackboneConfig(**{**settings, "out": tmp_path / "straight"}))
    config = BackboneConfig(**{**settings, "out": tmp_path / "killed", "checkpoint_steps": 5})
    path = backbone_module._write_settings(config)
    process = subprocess.Popen(
        [sys.executable, "-m", "steerward.training.backbone", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    checkpoints = tmp_path / "killed.checkpoints"
    while not list(checkpoints.glob("checkpoint-[1-9]*/trainer_state.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not config.out.exists()
    # As if the kill had come while the next checkpoint was written.
    (checkpoints / "checkpoint-1000").mkdir()
    resumed = run_backbone(config)
    expected, found = (load_file(f / "model.safetensors") for f in (straight, resumed))
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=1e-4)


def test_run_with_other_settings_is_not_gone_on_with(settings: dict[str, Any]) -> None:
    config = BackboneConfig(**{**settings, "steps": 2})
    folder = run_backbone(config)
    # As a kill leaves it: checkpoints, and no backbone yet.
    folder.rename(folder.with_name("elsewhere"))
    folder.with_name("base.checkpoints").mkdir()
    with pytest.raises(CheckpointRefused, match=r"a run with other learning_rate, seed; go on"):
        run_backbone(BackboneConfig(**{**settings, "steps": 2, "seed": 5, "learning_rate": 2e-3}))
    elsewhere = settings["pairs"][0].with_name("elsewhere.jsonl")
    shutil.copyfile(settings["pairs"][0], elsewhere)
    moved = BackboneConfig(**{**settings, "steps": 2, "pairs": [elsewhere]})
    with elsewhere.open("a") as file:
        file.write(elsewhere.read_text().splitlines()[0] + "\n")
    with pytest.raises(CheckpointRefused, match="other data_sha256;"):
        run_backbone(moved)
    # The same data at another place are the same run.
    shutil.copyfile(settings["pairs"][0], elsewhere)
    assert run_backbone(moved) == folder


def test_two_processes_train_one_model(settings: dict[str, Any]) -> None:
    config = BackboneConfig(**{**settings, "processes": 2, "steps": 20})
    folder = run_backbone(config)
    before, after = (load_file(Path(f) / "model.safetensors") for f in (config.start, folder))
    key = "layers.1.self_attn.v_proj.weight"
    assert float((before[key] - after[key].float()).abs().max()) > 1e-3
    assert load_backbone(folder, device="cpu")[0].hidden_size == 48
    assert json.loads(folder.with_name("base.settings.json").read_text())["processes"] == 2


def test_vectors_of_the_stored_backbone_are_the_served_ones(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Weights are rounded when they are stored, before anything is fitted on their vectors."""
    folder = run_backbone(BackboneConfig(**{**settings, "steps": 3}))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (ours, chat), (theirs, _) = (
        load_backbone(folder, device="cpu"),
        load_backbone(copy, device="cpu"),
    )
    batch = pack(group_conversations(chat.encode([{"role": "user", "content": "a"}], ["b", "c"])))
    with torch.inference_mode():
        assert torch.equal(ours(batch), theirs(batch))
