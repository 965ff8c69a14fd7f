"""Train a small causal backbone on ratings, pairs and text at once.

The objective heads see every rating; Bradley-Terry on their *gated sum* carries preferences into
the same hidden states, and into the prompt vector that the gate reads. What is kept is the
backbone: heads, transform and gate are fitted anew on its vectors, as in ArmoRM
(arXiv:2406.12845). transformers' Trainer runs the loop; packed batches are those of serving.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder
from steerward.models.checkpoint import load_backbone
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.errors import CheckpointRefused, DatasetRefused, SteerwardError
from steerward.training.config import BackboneConfig
from steerward.training.data.labels import load_objectives
from steerward.training.data.rows import PreferencePair, RatedResponse, load_rows
from steerward.training.files import file_digest, write_json
from steerward.training.mixture import Mixture
from steerward.training.multitask import MultiTaskModel
from steerward.training.together import end_together
from steerward.training.trainer import MixtureTrainer

# A stopped run may go on elsewhere and keep its checkpoints differently.
_FREE_TO_CHANGE = frozenset(
    {"device", "checkpoint_steps", "validation_steps"}
    # Their content is compared, wherever it lies.
    | {"start", "ratings", "pairs", "objectives", "out"}
)


def run_backbone(config: BackboneConfig) -> Path:
    """Train a backbone and return its folder.

    Raises:
        SteerwardError: If the start or the data cannot be read, or the folder exists.
    """
    if config.out.exists():
        raise CheckpointRefused(f"{config.out} exists already; choose another --out")
    _launch(config)
    return config.out


def _launch(config: BackboneConfig) -> None:
    """Train in processes of their own; several share a step by torch's launcher."""
    settings = _write_settings(config)
    module = ("-m", "steerward.training.backbone", str(settings))
    # Large blocks that are freed every step go back to the system and are faulted in again.
    environment = {
        "MALLOC_TRIM_THRESHOLD_": "4000000000",
        "MALLOC_MMAP_THRESHOLD_": "4000000000",
    }
    command = [sys.executable, *module]
    if config.processes > 1:
        launcher = ("-m", "torch.distributed.run", "--standalone")
        command = [sys.executable, *launcher, f"--nproc-per-node={config.processes}", *module]
        environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, env={**os.environ, **environment}, check=False)
    if done.returncode != 0 or not config.out.exists():
        raise CheckpointRefused(
            f"training ended with status {done.returncode}; its messages are above. Run the same "
            "command again to go on from the last checkpoint"
        )


def _write_settings(config: BackboneConfig) -> Path:
    """Write the settings beside the run, or refuse to go on with a run of other ones."""
    if _checkpoints(config).is_dir():
        check_settings(config)
    path = _settings_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, _identity(config))
    return path


def check_settings(config: BackboneConfig) -> None:
    """Compare a configuration with that of the run that lies at its place.

    Raises:
        CheckpointRefused: If they differ, or there is none.
    """
    path = _settings_path(config)
    if not path.is_file():
        raise CheckpointRefused(f"there is no {path}; choose another --out")
    before, now = json.loads(path.read_text()), _identity(config)
    different = sorted(
        key for key in now if key not in _FREE_TO_CHANGE and before.get(key) != now[key]
    )
    if different:
        raise CheckpointRefused(
            f"{config.out} is of a run with other {', '.join(different)}; go on with the same, "
            "choose another --out, or delete it and what lies beside it"
        )


def _identity(config: BackboneConfig) -> dict[str, Any]:
    """Return the settings, with digests of everything that training reads."""
    files = {
        "ratings": config.ratings,
        "pairs": config.pairs,
        "objectives": [config.objectives],
    }
    try:
        digests = {kind: [file_digest(path) for path in paths] for kind, paths in files.items()}
    except OSError as error:
        raise DatasetRefused(f"{error.filename} cannot be read: {error.strerror}") from error
    return json.loads(config.model_dump_json()) | {
        "start_weight_version": weight_version(resolve_source(config.start)),
        "data_sha256": digests,
    }


def _settings_path(config: BackboneConfig) -> Path:
    return config.out.with_name(config.out.name + ".settings.json")


def _checkpoints(config: BackboneConfig) -> Path:
    return config.out.with_name(config.out.name + ".checkpoints")


def _train(config: BackboneConfig) -> None:
    device = "cpu" if config.device == "auto" and not torch.cuda.is_available() else config.device
    backbone, chat = load_backbone(config.start, device=device, dtype="float32")
    mixture = _load_mixture(config, chat)
    torch.manual_seed(config.seed)
    mask_token_id = chat.tokenizer.mask_token_id
    model = MultiTaskModel(
        backbone,
        num_objectives=len(load_objectives(config.objectives)),
        num_raters=len(mixture.raters),
        config=config,
        mask_token_id=mask_token_id if isinstance(mask_token_id, int) else None,
    )
    _set_dropout(backbone, config.dropout)
    embedding = backbone.model.get_input_embeddings()
    embedding.requires_grad_(not config.freeze_embeddings)
    runs = _checkpoints(config)
    trainer = MixtureTrainer(model, mixture, config, runs)
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(runs))
    if trainer.is_world_process_zero():
        _save(backbone, chat, config)
        shutil.rmtree(runs, ignore_errors=True)


def _last_whole_checkpoint(runs: Path) -> str | None:
    """Return the newest checkpoint that a kill did not cut short."""
    steps = sorted(runs.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for path in reversed(steps):
        try:
            # The Trainer writes its state last.
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def _load_mixture(config: BackboneConfig, chat: ChatEncoder) -> Mixture:
    ratings = load_rows(config.ratings, RatedResponse, split="train")
    pairs = load_rows(config.pairs, PreferencePair, split="train")
    if not ratings and not pairs:
        raise DatasetRefused("there are no training rows; give --ratings or --pairs files")
    return Mixture(
        chat,
        ratings,
        pairs,
        load_objectives(config.objectives),
        max_tokens=config.max_tokens,
        validation_share=config.validation_share,
        seed=config.seed,
    )


def _set_dropout(backbone: Backbone, share: float) -> None:
    """Set the dropout of hidden states, and none of attention: packed batches have none."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Dropout):
            parent, _, own = name.rpartition(".")
            # Of the weights: `attention.self.dropout` in BERT, `attn.attn_dropout` in GPT-2.
            is_of_attention = "attn" in own or "attention" in own or parent.endswith("self")
            module.p = 0.0 if is_of_attention else share
        elif isinstance(getattr(module, "attention_dropout", None), float):
            cast("Any", module).attention_dropout = 0.0


def _save(backbone: Backbone, chat: ChatEncoder, config: BackboneConfig) -> None:
    building = config.out.with_name(config.out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    model = backbone.model.to(getattr(torch, config.weights_dtype))
    model.save_pretrained(building)
    chat.tokenizer.save_pretrained(building)
    os.replace(building, config.out)


def _main(settings: Path) -> int:
    """Train with the settings of a file; return the status of the process."""
    values = json.loads(settings.read_text())
    known = BackboneConfig.model_fields.keys() & values.keys()
    try:
        _train(BackboneConfig.model_validate({key: values[key] for key in known}))
        end_together()
    except SteerwardError as error:
        sys.stderr.write(f"steerward train backbone: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
