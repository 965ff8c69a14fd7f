"""Implicit rewards as margins: beta * (log pi_phi - log pi_sft) of policies that DPO trained.

As in MODPO's code, each phi is a LoRA adapter on one base model, which is pi_sft with all of them
switched off. Texts are made into tokens as TRL's DPO trainer makes them.

Axis legend: N responses, T tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from steerward.models.packing import common_prefix_length
from steerward.models.pretrained import load_pretrained, load_tokenizer
from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, InvalidRequest
from steerward.training.align.modpo.margins import Response
from steerward.training.files import file_digest

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class AdapterMargins:
    """Implicit rewards of PEFT adapters, with one base model in memory for all of them.

    Args:
        base: Folder of the policy that the adapters were trained on.
        adapters: Their folders, by objective.
        beta: That they were trained with; the rewards are in its units.
        device: Where to compute.
        dtype: Of the base model.

    Raises:
        CheckpointRefused: If a folder does not hold what it should.
        InvalidRequest: If beta is not above 0, or there is no adapter.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        base: Path,
        adapters: Mapping[str, Path],
        *,
        beta: float,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not beta > 0 or not adapters:
            raise InvalidRequest(
                f"implicit rewards need adapters and a beta above 0, got {len(adapters)} and {beta}"
            )
        for folder in adapters.values():
            for name in (_CONFIG, _WEIGHTS):
                if not (folder / name).is_file():
                    raise CheckpointRefused(f"{folder} holds no adapter: {name} is missing")
        self._beta = beta
        self._device = device or torch.device("cpu")
        self._identities = {
            name: _identity(base, folder, f"{beta!r}, {dtype}") for name, folder in adapters.items()
        }
        self._tokenizer = load_tokenizer(base)
        model = load_pretrained(AutoModelForCausalLM, base, what="policy", dtype=dtype)
        # Names of objectives may hold what PEFT does not take in a name.
        self._adapters = {name: f"margin_{i}" for i, name in enumerate(adapters)}
        self._model = _adapted(
            model, {self._adapters[name]: folder for name, folder in adapters.items()}
        ).to(self._device)
        self._model.eval()

    @property
    def names(self) -> tuple[str, ...]:
        """Objectives, in order."""
        return tuple(self._adapters)

    def identity(self, name: str) -> str:
        """Return a digest of base, adapter and beta."""
        return self._identities[name]

    @torch.no_grad()
    def rewards(self, responses: Sequence[Response]) -> Mapping[str, Sequence[float | None]]:
        """Return rewards by objective; None of responses beyond the positions of the model."""
        tokens = [tokens_of(self._tokenizer, one.prompt, one.text) for one in responses]
        config: Any = self._model.config
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        kept = [i for i, (ids, _) in enumerate(tokens) if limit is None or len(ids) <= limit]
        batch = [tokens[i] for i in kept]
        base_N = self._log_probs(batch, None)
        found: dict[str, list[float | None]] = {}
        for name, adapter in self._adapters.items():
            rewards_N = self._beta * (self._log_probs(batch, adapter) - base_N)
            rows = dict(zip(kept, rewards_N.tolist(), strict=True))
            found[name] = [rows.get(i) for i in range(len(responses))]
        return found

    def _log_probs(self, batch: Sequence[tuple[list[int], int]], adapter: str | None) -> Tensor:
        if not batch:
            return torch.zeros(0, dtype=torch.float64)
        if adapter is not None:
            self._model.set_adapter(adapter)
        with self._model.disable_adapter() if adapter is None else nullcontext():
            return completion_log_probs(self._model, batch, pad_id=_pad_id(self._tokenizer))


def tokens_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, response: Any
) -> tuple[list[int], int]:
    """Return prompt and response as tokens, and how many of them are the prompt's.

    As TRL's DPO trainer does: messages by the chat template, texts joined and closed by the end
    token; the response begins where the tokens with and without it part.

    Args:
        tokenizer: Of the policy.
        prompt: Text, or messages.
        response: Text, or messages.
    """
    tools: Any = tokenizer
    if isinstance(prompt, str):
        end = tools.eos_token
        text = response if response.endswith(end) else response + end
        before, whole = tools(text=prompt)["input_ids"], tools(text=prompt + text)["input_ids"]
    else:
        before, whole = (
            tools.apply_chat_template(messages, tokenize=True, return_dict=True, **more)[
                "input_ids"
            ]
            for messages, more in (
                (prompt, {"add_generation_prompt": True}),
                ([*prompt, *response], {}),
            )
        )
    return whole, common_prefix_length(before, whole)


def completion_log_probs(
    model: Any, batch: Sequence[tuple[list[int], int]], *, pad_id: int
) -> Tensor:
    """Return the summed log-probability of each response, float64 on the host.

    Args:
        model: Causal language model.
        batch: Tokens of prompt and response, and how many are the prompt's.
        pad_id: Token to pad with; it is never read.
    """
    length = max(len(ids) for ids, _ in batch)
    ids_NT = torch.full((len(batch), length), pad_id)
    mask_NT = torch.zeros_like(ids_NT)
    labels_NT = torch.full_like(ids_NT, -100)
    for row, (ids, start) in enumerate(batch):
        ids_NT[row, : len(ids)] = torch.tensor(ids)
        mask_NT[row, : len(ids)] = 1
        labels_NT[row, start : len(ids)] = torch.tensor(ids[start:])
    device = next(model.parameters()).device
    logits_NTV = model(input_ids=ids_NT.to(device), attention_mask=mask_NT.to(device)).logits
    losses_NT = functional.cross_entropy(
        logits_NTV[:, :-1].float().transpose(1, 2),
        labels_NT[:, 1:].to(device),
        reduction="none",
        ignore_index=-100,
    )
    return -losses_NT.double().sum(dim=-1).cpu()


def _adapted(model: Any, adapters: Mapping[str, Path]) -> PeftModel:
    (first, folder), *others = adapters.items()
    adapted = PeftModel.from_pretrained(model, folder, adapter_name=first)
    for name, other in others:
        adapted.load_adapter(str(other), adapter_name=name)
    return adapted


def _identity(base: Path, adapter: Path, settings: str) -> str:
    parts = [weight_version(base), *(file_digest(adapter / n) for n in (_CONFIG, _WEIGHTS))]
    return hashlib.sha256("\n".join([*parts, settings]).encode()).hexdigest()


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    known: Any = tokenizer
    return known.pad_token_id if known.pad_token_id is not None else known.eos_token_id
