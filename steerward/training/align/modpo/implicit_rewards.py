"""Implicit rewards as margins: beta * (log pi_phi - log pi_sft) of policies that DPO trained.

As in MODPO's code, each phi is a LoRA adapter on one base model, which is pi_sft with all of them
switched off. Texts are made into tokens as TRL's DPO trainer makes them.

Axis legend: N responses, T tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from steerward.models.packing import common_prefix_length
from steerward.models.pretrained import LOADING_ERRORS, load_pretrained, load_tokenizer
from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, InvalidRequest
from steerward.training.align.modpo.adapter_folders import (
    ADAPTER_WEIGHTS,
    adapter_version,
    check_adapter,
)
from steerward.training.align.modpo.margins import Response


class AdapterMargins:
    """Implicit rewards of PEFT adapters, with one base model in memory for all of them.

    Args:
        base: Folder of the policy that the adapters were trained on.
        adapters: Their folders, by objective.
        beta: That they were trained with; the rewards are in its units.
        less: Objectives of which less is better: their rewards have the other sign.
        device: Where to compute.
        dtype: Of the base model.

    Raises:
        CheckpointRefused: If a folder does not hold what it should, or an adapter of a model that
            is built otherwise.
        InvalidRequest: If beta is not above 0, or there is no adapter.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        base: Path,
        adapters: Mapping[str, Path],
        *,
        beta: float,
        less: Collection[str] = (),
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not beta > 0 or not adapters:
            raise InvalidRequest(
                f"implicit rewards need adapters and a beta above 0, got {len(adapters)} and {beta}"
            )
        for folder in adapters.values():
            check_adapter(folder)
        self._factors = {name: -beta if name in less else beta for name in adapters}
        self._device = device or torch.device("cpu")
        self._identities = {
            name: _identity(base, folder, f"{self._factors[name]!r}, {dtype}")
            for name, folder in adapters.items()
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
        """Return a digest of base, adapter, beta and sign."""
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
            rewards_N = self._factors[name] * (self._log_probs(batch, adapter) - base_N)
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
    adapted: Any = None
    for name, folder in adapters.items():
        try:
            with warnings.catch_warnings():
                # Those that are missing are told below, as an error.
                warnings.filterwarnings("ignore", message="Found missing adapter keys")
                if adapted is None:
                    adapted = PeftModel.from_pretrained(model, folder, adapter_name=name)
                else:
                    adapted.load_adapter(str(folder), adapter_name=name)
        except (*LOADING_ERRORS, SafetensorError) as error:
            raise CheckpointRefused(
                f"the adapter in {folder} does not fit the policy ({type(error).__name__}): {error}"
            ) from error
        _check_whole(adapted, name, folder)
    return adapted


def _check_whole(adapted: PeftModel, name: str, folder: Path) -> None:
    """Refuse an adapter of which the file and the model have different parts.

    PEFT would fill what is missing with random numbers, and leave the rest aside.
    """
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        given = set(file.keys())
    held = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    if given != held.keys():
        raise CheckpointRefused(
            f"the adapter in {folder} is of another base: {min(given ^ held.keys())!r} is in one "
            "of the adapter and the policy only; give the policy that it was trained on"
        )


def _identity(base: Path, adapter: Path, settings: str) -> str:
    parts = [weight_version(base), adapter_version(adapter), settings]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    known: Any = tokenizer
    return known.pad_token_id if known.pad_token_id is not None else known.eos_token_id
