"""Probabilities of labels as the answer of a causal language model in this process.

Axis letters: N conversations, T tokens, L tokens of a label, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steerward.protocol.errors import InvalidRequest, brief


class CausalLabelProbabilities:
    """Asks a model how probable labels are, by the log-probabilities of all of their tokens.

    Unlike a server's likeliest tokens, it knows those of every label, also of several tokens.
    The probability is that of an answer that begins with the label.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer, with a chat template.
        batch_size: Sequences of one forward pass.

    Raises:
        InvalidRequest: If the tokenizer has no chat template, or the size is less than 1.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 8) -> None:
        if not tokenizer.chat_template:
            raise InvalidRequest(
                "the judge's tokenizer has no chat template, which writes the question; use a "
                "model that was tuned to answer"
            )
        if batch_size < 1:
            raise InvalidRequest(f"batch_size is {batch_size}; give at least 1", param="batch_size")
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    def __call__(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], labels: tuple[str, ...]
    ) -> list[tuple[float, ...] | None]:
        """Return the probability of each label, for each conversation.

        Raises:
            InvalidRequest: If a label has no token, or a question is longer than the model reads.
        """
        answers = [self._tokens(label) for label in labels]
        prompts = [self._prompt(turns) for turns in conversations]
        sequences = [(prompt, answer) for prompt in prompts for answer in answers]
        self._check_lengths(sequences)
        found: list[float] = []
        was_training = self._model.training
        self._model.eval()
        try:
            for start in range(0, len(sequences), self._batch_size):
                found += self._probabilities(sequences[start : start + self._batch_size])
        finally:
            self._model.train(was_training)
        size = len(labels)
        return [tuple(found[i * size : (i + 1) * size]) for i in range(len(conversations))]

    def _tokens(self, label: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(label, add_special_tokens=False)
        if not ids:
            raise InvalidRequest(f"the label {brief(label)!r} has no token; give a word")
        return ids

    def _prompt(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        return self._tokenizer.apply_chat_template(
            [dict(turn) for turn in turns],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )

    def _check_lengths(self, sequences: Sequence[tuple[list[int], list[int]]]) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        longest = max((len(prompt) + len(answer) for prompt, answer in sequences), default=0)
        if limit is not None and longest > limit:
            raise InvalidRequest(
                f"a question to the judge has {longest} tokens, and its model reads {limit}; "
                "shorten prompts and completions, or use a model that reads more"
            )

    @torch.no_grad()
    def _probabilities(self, sequences: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Return the probability of each answer after its prompt, of one batch."""
        device = self._model.device
        longest = max(len(prompt) + len(answer) for prompt, answer in sequences)
        ids_NT = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask_NT = torch.zeros_like(ids_NT)
        for row, (prompt, answer) in enumerate(sequences):
            tokens = prompt + answer
            # Padding behind is seen by no token before it.
            ids_NT[row, : len(tokens)] = torch.tensor(tokens)
            mask_NT[row, : len(tokens)] = 1
        logits_NTV = self._model(
            input_ids=ids_NT.to(device), attention_mask=mask_NT.to(device), use_cache=False
        ).logits
        return [
            label_probability(logits_NTV[row], prompt=len(prompt), answer=answer)
            for row, (prompt, answer) in enumerate(sequences)
        ]


def label_probability(logits_TV: Tensor, *, prompt: int, answer: Sequence[int]) -> float:
    """Return the probability of an answer's tokens: the exponent of their summed log-probabilities.

    Args:
        logits_TV: Of the prompt and the answer; the logits at a token predict the next one.
        prompt: Tokens of the prompt.
        answer: Ids of the answer's tokens.
    """
    rows_LV = logits_TV[prompt - 1 : prompt - 1 + len(answer)].float()
    logprobs_LV = torch.log_softmax(rows_LV, dim=-1)
    ids_L1 = torch.tensor(list(answer), device=logits_TV.device).unsqueeze(-1)
    return logprobs_LV.gather(-1, ids_L1).sum().exp().item()
