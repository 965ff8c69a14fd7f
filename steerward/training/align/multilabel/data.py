"""Labelled responses, as token ids that a sequence classifier reads at their last token.

Axis legend: N rows, K labels, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from steerward.models.chat import ChatEncoder
from steerward.protocol.errors import CheckpointRefused, DatasetRefused, InvalidRequest, brief
from steerward.training.data.rows import Row, held_out, load_rows


class LabelledResponse(Row):
    """A response with several labels, each in units of its own."""

    id: str = ""
    source: str = "rows"
    response: str
    labels: dict[str, FiniteFloat | None] = Field(min_length=1)
    """By name; null where it is missing."""

    @model_validator(mode="before")
    @classmethod
    def _prompt_is_a_turn(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        given = dict(cast("Mapping[str, Any]", fields))
        if ("prompt" in given) == ("messages" in given):
            raise ValueError("give either prompt or messages")
        if "prompt" in given:
            prompt = given.pop("prompt")
            is_text = isinstance(prompt, str)
            given["messages"] = [{"role": "user", "content": prompt}] if is_text else prompt
        return given


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """Rows as the model reads them."""

    ids: list[list[int]]
    labels_NK: Tensor
    """NaN where a label is missing."""
    left_out: int = 0
    """Rows that are over the length limit or have no label."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, n: int) -> dict[str, Any]:
        return {"input_ids": self.ids[n], "labels": self.labels_NK[n]}

    def take(self, numbers: Sequence[int]) -> LabelledExamples:
        """Return some of the rows."""
        return replace(
            self, ids=[self.ids[n] for n in numbers], labels_NK=self.labels_NK[list(numbers)]
        )


def read_labelled(paths: Sequence[Path]) -> list[LabelledResponse]:
    """Return the training rows of files; those without an id get their place for one.

    Raises:
        DatasetRefused: If a file cannot be read, a row breaks the schema, or there are none.
    """
    rows = load_rows(paths, LabelledResponse, split="train")
    if not rows:
        raise DatasetRefused(f"{', '.join(path.name for path in paths)}: no rows of split train")
    return [
        row if row.id else row.model_copy(update={"id": f"row {number}"})
        for number, row in enumerate(rows)
    ]


def label_names(rows: Sequence[LabelledResponse], chosen: Sequence[str]) -> list[str]:
    """Return the labels to learn in order: those chosen, or all that rows name, sorted.

    Raises:
        DatasetRefused: If a chosen one is in no row, or is chosen twice.
    """
    known = sorted({name for row in rows for name in row.labels})
    if not chosen:
        return known
    unknown = [brief(name) for name in chosen if name not in known]
    if unknown or len(set(chosen)) < len(chosen):
        raise DatasetRefused(
            f"objectives {', '.join(map(brief, chosen))}: "
            f"{'no row has ' + ', '.join(unknown) if unknown else 'a name repeats'}; "
            f"the rows have {', '.join(known)}"
        )
    return list(chosen)


def encode_labelled(
    rows: Sequence[LabelledResponse],
    names: Sequence[str],
    encoder: ChatEncoder,
    *,
    max_tokens: int,
    validation: tuple[float, int],
) -> tuple[LabelledExamples, LabelledExamples]:
    """Return the rows to learn from, and those held out.

    Args:
        rows: All of them.
        names: Of the labels, K.
        encoder: Renders conversations as they are served.
        max_tokens: Longer ones are left out.
        validation: Share of the prompts to hold out, and salt of their choice.

    Raises:
        DatasetRefused: If a template refuses a row, or a label is missing from all rows to learn
            from or from all held out.
    """
    is_held_out = held_out(rows, share=validation[0], seed=validation[1])
    parts = [
        _encode(
            [row for row, out in zip(rows, is_held_out, strict=True) if out is wanted],
            names,
            encoder,
            max_tokens,
        )
        for wanted in (False, True)
    ]
    for part, what in zip(parts, ("to learn from", "held out"), strict=True):
        missing = [name for k, name in enumerate(names) if bool(part.labels_NK[:, k].isnan().all())]
        if missing:
            raise DatasetRefused(
                f"of {len(part)} rows {what}, none has the label {', '.join(missing)} "
                f"({part.left_out} were left out: over {max_tokens} tokens, or without a label); "
                "give more rows, another validation_share or seed, or leave the label out of the "
                "objectives"
            )
    return parts[0], parts[1]


def _encode(
    rows: Sequence[LabelledResponse], names: Sequence[str], encoder: ChatEncoder, max_tokens: int
) -> LabelledExamples:
    kept: list[list[int]] = []
    labels: list[list[float]] = []
    for row in rows:
        values = [row.labels.get(name) for name in names]
        if all(value is None for value in values):
            continue
        try:
            (conversation,) = encoder.encode(row.context, [row.response])
        except InvalidRequest as error:
            raise DatasetRefused(f"{brief(row.id)}: {error}") from error
        if len(conversation.ids) <= max_tokens:
            kept.append(conversation.ids)
            labels.append([float("nan") if value is None else value for value in values])
    labels_NK = torch.tensor(labels).reshape(len(kept), len(names))
    return LabelledExamples(kept, labels_NK, left_out=len(rows) - len(kept))


def padding_token(tokenizer: PreTrainedTokenizerBase, examples: LabelledExamples) -> int:
    """Return a token to pad with that no conversation ends in.

    Classifiers of transformers read the last token that is not padding. Padded with the token that
    closes a turn, as many checkpoints are, they would read another one than is served.

    Raises:
        CheckpointRefused: If there is none.
    """
    ends = {ids[-1] for ids in examples.ids}
    others = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id]
    for token in [*others, *tokenizer.all_special_ids]:
        if isinstance(token, int) and token not in ends:
            return token
    raise CheckpointRefused(
        "conversations end in the only special tokens that this tokenizer has, so none is left to "
        "pad with; add a padding token to it"
    )


def collate(examples: Sequence[Mapping[str, Any]], *, padding: int) -> dict[str, Tensor]:
    """Return rows as one batch, padded on the right."""
    longest = max(len(example["input_ids"]) for example in examples)
    ids_NT = torch.full((len(examples), longest), padding)
    mask_NT = torch.zeros_like(ids_NT)
    for n, example in enumerate(examples):
        length = len(example["input_ids"])
        ids_NT[n, :length] = torch.tensor(example["input_ids"])
        mask_NT[n, :length] = 1
    labels_NK = torch.stack([example["labels"] for example in examples])
    return {"input_ids": ids_NT, "attention_mask": mask_NT, "labels": labels_NK}
