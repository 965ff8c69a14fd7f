"""Train a small causal backbone on ratings, pairs and text at once.

The objective heads see every rating; Bradley-Terry on their *gated sum* carries preferences into
the same hidden states, and into the prompt vector that the gate reads. What is kept is the
backbone: heads, transform and gate are fitted anew on its vectors, as in ArmoRM
(arXiv:2406.12845). transformers' Trainer runs the loop; packed batches are those of serving.

Axis legend: N responses, P prompts, K objectives, T packed tokens, H hidden.
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
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from steerward.gating.network import GatingNetwork
from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder
from steerward.models.checkpoint import load_backbone
from steerward.models.packing import PackedBatch
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.errors import CheckpointRefused, DatasetRefused, SteerwardError
from steerward.training.config import BackboneConfig
from steerward.training.data.labels import load_objectives
from steerward.training.data.rows import PreferencePair, RatedResponse, load_rows
from steerward.training.files import file_digest, write_json
from steerward.training.losses import bradley_terry, calibrated_mse, next_token_loss
from steerward.training.mixture import Mixture, StepSampler, packed_of
from steerward.training.noise import mask_tokens, shift_positions

_MOST_PREDICTED_TOKENS = 2048

# A stopped run may go on elsewhere and keep its checkpoints differently.
_FREE_TO_CHANGE = frozenset(
    {"device", "checkpoint_steps", "validation_steps"}
    # Their content is compared, wherever it lies.
    | {"start", "ratings", "pairs", "objectives", "out"}
)


class MultiTaskModel(nn.Module):
    """A backbone with the heads and the gate that shape it.

    Args:
        backbone: To be trained.
        num_objectives: Heads, K.
        num_raters: Scales that ratings come on.
        config: Weights of the losses, and noise.
        mask_token_id: What masked tokens are replaced by.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_objectives: int,
        num_raters: int,
        config: BackboneConfig,
        mask_token_id: int | None = None,
    ) -> None:
        super().__init__()
        if config.masked_share > 0 and mask_token_id is None:
            raise CheckpointRefused(
                f"masked_share is {config.masked_share}, but the tokenizer of {config.start} has "
                "no mask token; set it to 0"
            )
        self.backbone = backbone
        self.heads = nn.Linear(backbone.hidden_size, num_objectives)
        nn.init.normal_(self.heads.weight, std=0.02)
        nn.init.zeros_(self.heads.bias)
        self.gate = GatingNetwork.random(
            hidden_size=backbone.hidden_size,
            gate_hidden_size=64,
            num_hidden_layers=1,
            num_objectives=num_objectives,
            temperature=1.0,
            # Standardised rewards: a mean of K of them would have almost no spread.
            scale=float(num_objectives) ** 0.5,
        )
        self.slope = nn.Parameter(torch.ones(num_raters))
        self.offset = nn.Parameter(torch.zeros(num_raters))
        self._config = config
        self._mask_token_id = mask_token_id

    def forward(self, **step: Any) -> dict[str, Tensor]:
        """Return the loss of a step, its parts, and the share of pairs that are ranked right."""
        batch = packed_of(step).to(self.backbone.device)
        hidden_TH = self.backbone(self._noisy(batch) if self.training else batch).float()
        # Autocast would round the small layers on top for no gain.
        with torch.autocast(hidden_TH.device.type, enabled=False):
            losses, margins_P = self._losses(batch, hidden_TH, step)
        config = self._config
        weights = {
            "ratings": config.rating_weight,
            "gate": config.gate_weight,
            "category": config.category_weight,
            "within": config.within_weight,
            "language": config.language_weight,
        }
        total = sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))
        parts = {name: loss.detach() for name, loss in losses.items()}
        if len(margins_P):
            parts["accuracy"] = (margins_P > 0).float().mean()
        return {"loss": total, **parts}

    def _noisy(self, batch: PackedBatch) -> PackedBatch:
        config = self._config
        if config.masked_share > 0:
            assert self._mask_token_id is not None
            batch = mask_tokens(batch, share=config.masked_share, mask_token_id=self._mask_token_id)
        if config.shifted_share > 0:
            positions = min(config.max_tokens, self.backbone.max_positions)
            batch = shift_positions(batch, share=config.shifted_share, max_positions=positions)
        return batch

    def _losses(
        self, batch: PackedBatch, hidden_TH: Tensor, step: dict[str, Any]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss, and the margins of the pairs."""
        rewards_NK = self.heads(hidden_TH[batch.last_positions_N])
        gates_PK = self.gate(hidden_TH[batch.gating_positions_P])
        scores_N = (gates_PK[batch.prompt_index_N] * rewards_NK).sum(dim=-1)
        chosen, rejected = step["pairs"]
        response, objective, rater = step["ratings"]
        losses = {
            "ratings": calibrated_mse(
                rewards_NK,
                response_R=response,
                objective_R=objective,
                rater_R=rater,
                labels_R=step["labels"],
                slope=self.slope,
                offset=self.offset,
            ),
            "gate": bradley_terry(scores_N[chosen], scores_N[rejected]),
        }
        for name in ("category", "within"):
            higher, lower, about = step[name]
            losses[name] = bradley_terry(rewards_NK[higher, about], rewards_NK[lower, about])
        if self._config.language_weight > 0:
            losses["language"] = self._language_loss(batch, hidden_TH)
        return losses, (scores_N[chosen] - scores_N[rejected]).detach()

    def _language_loss(self, batch: PackedBatch, hidden_TH: Tensor) -> Tensor:
        targets_T = torch.full_like(batch.input_ids_T, -100)
        for segment in batch.segments:
            inside = slice(segment.start, segment.end - 1)
            targets_T[inside] = batch.input_ids_T[segment.start + 1 : segment.end]
        embedding = self.backbone.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return next_token_loss(
            hidden_TH, embedding.weight, targets_T=targets_T, max_tokens=_MOST_PREDICTED_TOKENS
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
    trainer = _MixtureTrainer(model, mixture, config, runs)
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


def _uses_bfloat16(config: BackboneConfig, device: torch.device) -> bool:
    if config.compute_dtype != "auto":
        return config.compute_dtype == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Processors without matrix tiles multiply bfloat16 more slowly than float32.
    return torch.cpu._is_amx_tile_supported()


class _MixtureTrainer(Trainer):
    """transformers' Trainer over a mixture: our steps, our learning rates."""

    def __init__(
        self, model: MultiTaskModel, mixture: Mixture, config: BackboneConfig, runs: Path
    ) -> None:
        self._validation = StepSampler(
            mixture,
            config,
            rank=0,
            processes=1,
            steps=config.validation_steps,
            from_held_out=True,
        )
        is_validated = len(self._validation) > 0 and not self._validation.is_empty
        arguments = TrainingArguments(
            output_dir=str(runs),
            max_steps=config.steps,
            per_device_train_batch_size=1,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=round(config.warmup_share * config.steps),
            max_grad_norm=1.0,
            adam_beta2=0.98,
            bf16=_uses_bfloat16(config, model.backbone.device),
            use_cpu=model.backbone.device.type == "cpu",
            logging_steps=50,
            eval_strategy="steps" if is_validated else "no",
            eval_steps=config.checkpoint_steps,
            save_steps=config.checkpoint_steps,
            save_total_limit=2,
            report_to=[],
            seed=config.seed,
            remove_unused_columns=False,
            label_names=[],
            ddp_find_unused_parameters=False,
        )
        super().__init__(model=model, args=arguments, train_dataset=mixture, eval_dataset=mixture)
        self._mixture = mixture
        self._config = config
        self._parts: dict[str, list[float]] = {}

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return our own steps; each process draws its own rows."""
        sampler = StepSampler(
            self._mixture,
            self._config,
            rank=self.args.process_index,
            processes=self.args.world_size,
        )
        if sampler.is_empty:
            raise DatasetRefused(
                "a training step would hold nothing: of the rows, "
                f"{self._mixture.left_out} are over max_tokens or rate no objective, "
                f"validation_share {self._config.validation_share} holds others out; a step draws "
                f"{self._config.pairs_per_step} pairs and {self._config.rated_per_step} ratings"
            )
        return DataLoader(self._mixture, batch_sampler=sampler, collate_fn=self._mixture.collate)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW with the heads' own rate, and decay on matrices only."""
        del model  # The bare model's names tell backbone and heads apart.
        config = self._config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in cast("nn.Module", self.model).named_parameters():
            if not parameter.requires_grad:
                continue
            is_backbone = name.startswith("backbone.")
            rate = config.learning_rate if is_backbone else config.head_learning_rate
            is_matrix = parameter.dim() > 1 and "embedding" not in name
            decay = config.weight_decay if is_matrix else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()],
            betas=(0.9, self.args.adam_beta2),
        )
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """Return the loss of a step, and keep its parts for the log."""
        outputs = model(**inputs)
        for name, value in outputs.items():
            self._parts.setdefault(name, []).append(float(value.detach()))
        return outputs["loss"]

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return and log the losses on held-out prompts, the same steps every time."""
        model = cast("nn.Module", self.model).eval()
        parts: dict[str, list[float]] = {}
        for keys in self._validation:
            step = self._prepare_inputs(self._mixture.collate(keys))
            for name, value in model(**step).items():
                parts.setdefault(name, []).append(float(value))
        means = {f"eval_{name}": sum(found) / len(found) for name, found in parts.items()}
        super().log(dict(means))
        return means

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the parts of the loss to what is logged."""
        parts = {name: sum(v) / len(v) for name, v in self._parts.items() if v and name != "loss"}
        self._parts.clear()
        super().log({**logs, **parts}, *arguments, **options)


def _main(settings: Path) -> int:
    """Train with the settings of a file; return the status of the process."""
    values = json.loads(settings.read_text())
    known = BackboneConfig.model_fields.keys() & values.keys()
    try:
        _train(BackboneConfig.model_validate({key: values[key] for key in known}))
    except SteerwardError as error:
        sys.stderr.write(f"steerward train backbone: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
