"""The policy that is fine-tuned: loaded in the numbers it is trained in, saved as it is served.

Weights that are served in bfloat16 are trained in float32. Rounding them between iterations would
lose the small steps that fine-tuning makes, so a float32 copy lies beside them in the folder
`master`, from which the next iteration begins. An adapter is stored in float32 anyway.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from steerward.models.pretrained import load_pretrained
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.rsf import LoraSettings
from steerward.protocol.sft_work import MASTER, REPORT_FILE, SftJob
from steerward.training.files import write_json

_ADAPTER = "adapter_config.json"
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# What a policy's folder holds beside weights. Reports and cards are of the weights.
_BESIDE_WEIGHTS = (".json", ".jinja", ".model", ".txt")


def load_trained(job: SftJob, device: torch.device) -> PreTrainedModel | PeftModel:
    """Return the model that learns, on the CPU: all weights, or an adapter on fixed ones.

    Without an adapter to go on from, the model comes without, and TRL adds one.

    Raises:
        CheckpointRefused: If the folders do not hold what the job says.
    """
    if job.training.method == "full":
        folder = job.start or job.base
        if (folder / _ADAPTER).is_file():
            raise CheckpointRefused(
                f"{folder} holds an adapter, and method 'full' trains all weights; use method "
                "'lora', or start from weights"
            )
        master = folder / MASTER
        return _load(master if master.is_dir() else folder, torch.float32)
    model = load_base(job, device)
    if job.start is None:
        return model
    if not (job.start / _ADAPTER).is_file():
        raise CheckpointRefused(
            f"{job.start} holds no adapter (no {_ADAPTER}), and method 'lora' goes on from one; "
            "use method 'full', or give the policy as the base"
        )
    adapted = PeftModel.from_pretrained(model, job.start, is_trainable=True)  # pyright: ignore
    # PEFT looks there for the vocabulary when it saves.
    adapted.active_peft_config.base_model_name_or_path = str(job.base)
    return adapted


def load_base(job: SftJob, device: torch.device) -> PreTrainedModel:
    """Return the model of the policy that the job began with; it gets no gradients.

    On a GPU it has the numbers it is stored in.

    Raises:
        CheckpointRefused: If it does not load.
    """
    dtype = stored_dtype(job.base) if uses_bfloat16(device) else torch.float32
    return _load(job.base, dtype).requires_grad_(False)


def _load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    model = load_pretrained(AutoModelForCausalLM, folder, what="policy", dtype=dtype)
    # Training keeps no keys and values.
    model.config.use_cache = False
    return model


def uses_bfloat16(device: torch.device) -> bool:
    """Return whether training mixes bfloat16 with float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the type of the weights in a checkpoint folder.

    Raises:
        CheckpointRefused: If there are none, or they are of a type that is not trained.
    """
    path = min(folder.glob("*.safetensors"), default=None)
    if path is None:
        raise CheckpointRefused(f"{folder} holds no safetensors file")
    with safe_open(path, framework="pt") as file:
        name = file.get_slice(min(file.keys())).get_dtype()
    if name not in _DTYPES:
        raise CheckpointRefused(
            f"{path} stores weights as {name}; fine-tuning takes {', '.join(_DTYPES)}"
        )
    return _DTYPES[name]


def lora_config(settings: LoraSettings) -> LoraConfig:
    """Return the settings of a new adapter as PEFT wants them."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType] (any number will do)
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
    )


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens at which completions of the policy end, as it is served.

    Raises:
        CheckpointRefused: If there are none.
    """
    named = model.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    found = frozenset(i for i in [*ids, tokenizer.eos_token_id] if isinstance(i, int))
    if not found:
        raise CheckpointRefused(
            "neither generation_config.json nor the tokenizer names an end token; set eos_token_id"
        )
    return found


def save_adapter(model: PeftModel, state: dict[str, Tensor], folder: Path, *, base: Path) -> None:
    """Write an adapter as PEFT and the server load it."""
    model.save_pretrained(
        str(folder), state_dict=state, safe_serialization=True, save_embedding_layers=False
    )
    path = folder / _ADAPTER
    config = json.loads(path.read_text(encoding="utf-8"))
    # Where the base lay on this machine helps nobody.
    config["base_model_name_or_path"] = base.name
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_json(path, config)
    (folder / "README.md").unlink(missing_ok=True)


def save_policy(
    model: PreTrainedModel, state: dict[str, Tensor], folder: Path, *, base: Path
) -> None:
    """Write a policy's folder: weights as the base stores them, everything else as it has it."""
    dtype = stored_dtype(base)
    if dtype != torch.float32:
        model.save_pretrained(folder / MASTER, state_dict=dict(state))
    model.save_pretrained(folder, state_dict=_cast(state, dtype))
    for path in base.iterdir():
        is_of_weights = path.name == REPORT_FILE or path.name.endswith(".safetensors.index.json")
        if path.is_file() and path.suffix in _BESIDE_WEIGHTS and not is_of_weights:
            shutil.copyfile(path, folder / path.name)


def _cast(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return tensors in another type; those that are one under several keys stay one."""
    known: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if tensor.data_ptr() not in known:
            known[tensor.data_ptr()] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found[key] = known[tensor.data_ptr()]
    return found
