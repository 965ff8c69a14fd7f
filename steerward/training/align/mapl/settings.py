"""Settings of MAPL for reward models. Free of torch, like all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from steerward.config import Settings


class MaplConfig(Settings):
    """Train a reward model to follow instructions, by MAPL (arXiv:2505.12845).

    From preference pairs it builds prompts with instructions that can be checked, of which a
    response follows one better than another, and learns from these rows and the pairs together.
    Some kinds of instructions are held out, to measure on. The model is a sequence classifier of
    transformers, which `steerward serve` loads. Stopped runs go on from their last checkpoint.

    With both weights 0 it learns from the pairs alone, as plain Bradley-Terry does.

    MAPL's settings are not published. Learning rate, schedule, batch size and epochs are those of
    the response-conditioned reward model of the same group (arXiv:2502.00814); all other defaults
    are ours.

    Examples:
      steerward train mapl --start ./policy --pairs pairs.jsonl --out ./run
      steerward serve --reward-model ./run/model
    """

    start: str
    """Folder or hub id of a causal model, which gets a new head, or of a reward model with one
    output; with tokenizer and chat template."""
    pairs: list[Path] = Field(min_length=1)
    """Pair file, JSON lines (also .gz) or Parquet: `prompt` or `messages`, `chosen`, `rejected`;
    repeatable."""
    out: Path
    """Folder of the run: settings, log, evaluations, rows and at the end the model."""
    name: str = Field(default="mapl", min_length=1)
    """Of the run, in reports. Runs of one name differ in their seed only."""
    lambda_intra: float = Field(default=1.0, ge=0)
    """Weight of rows in which the response stays and the instructions vary; 0 leaves them out."""
    lambda_inter: float = Field(default=1.0, ge=0)
    """Weight of rows in which the pair stays and instructions are added; 0 leaves them out."""
    min_instructions: int = Field(default=2, ge=1)
    """Fewest instructions in a prompt."""
    max_instructions: int = Field(default=4, ge=1)
    """Most instructions in a prompt."""
    held_out_kinds: list[str] = []
    """Kinds of instructions that training does not see, to measure on; repeatable. Default: some
    are drawn by the seed."""
    held_out_kinds_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the kinds to hold out, where none is named."""
    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts that training does not see, to measure on."""
    min_rows_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the pairs that must give rows, or the run is refused."""
    method: Literal["full", "lora"] = "full"
    """All weights, or a LoRA adapter and the head; the adapter is merged at the end."""
    lora_rank: int = Field(default=16, ge=1)
    """Of method `lora`."""
    lora_alpha: float = Field(default=32.0, gt=0)
    """Of method `lora`: how much the adapter counts is this over its rank."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the rows of all parts together."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps, in place of epochs."""
    batch_size: int = Field(default=64, ge=1)
    """Rows of one optimiser step, over all processes. A row is two conversations, or four where
    instructions were added to a pair."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on each device. Lower takes less memory. Default: as many as the
    batch size allows."""
    max_tokens: int = Field(default=2048, ge=8)
    """Rows with a longer conversation are left out and counted; they are never cut."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak; AdamW, warm-up, then a cosine to zero. Small models take more."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps that the learning rate takes to rise."""
    checkpoint_steps: int = Field(default=100, ge=1)
    """Steps between checkpoints: what a kill can cost."""
    evaluation_steps: int = Field(default=100, ge=1)
    """Steps between two evaluations of what is held out; there is one before and one at the end."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between two lines of the log."""
    report_to: list[str] = []
    """Where logs go beside the folder, in transformers' words, such as tensorboard; repeatable."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of rows, head and order, and of what is held out."""

    @model_validator(mode="after")
    def _instructions_are_a_range(self) -> Self:
        if self.max_instructions < self.min_instructions:
            raise ValueError(
                f"max_instructions is {self.max_instructions}, below min_instructions "
                f"{self.min_instructions}"
            )
        return self
