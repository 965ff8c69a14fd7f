"""Settings of multi-label reward regression. Free of torch, like all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from steerward.config import Settings


class MultiLabelConfig(Settings):
    """Train one reward model with an output for each of several labels, by regression.

    Rows are JSON lines (also .gz) with `prompt` or `messages`, `response`, and `labels`, an object
    of name -> number or null; a label that is null or absent teaches nothing. The model is a
    sequence classifier of transformers, which `steerward serve` loads, with the labels' names for
    objectives. Stopped runs go on from their last checkpoint.

    The paper (arXiv:2503.21819) gives no settings for its reward model: all defaults are ours.

    Examples:
      steerward train multilabel --start ./policy --data labelled.jsonl --out ./labels-model
      steerward serve --reward-model ./labels-model
    """

    start: str
    """Folder or hub id of a causal model to start from, with tokenizer and chat template."""
    data: list[Path] = Field(min_length=1)
    """File of labelled rows, JSON lines (also .gz) or Parquet; repeatable."""
    out: Path
    """Folder for the model; must not exist. Checkpoints lie beside it until it is done."""
    objectives: list[str] = []
    """Labels to learn, in the order of the outputs; repeatable. Default: all, by name."""
    label_weights: dict[str, PositiveFloat] = {}
    """Weight of each label's squared error, as JSON; labels that are not named have 1."""
    balance_labels: bool = False
    """Divide the squared error of each label by the label's variance, so that labels on wide scales
    do not rule."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the rows."""
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimiser step, over all processes."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on each device. Lower takes less memory and changes no result.
    Default: as many as the batch size allows."""
    max_tokens: int = Field(default=2048, ge=8)
    """Longer conversations are left out and counted; they are never cut."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Of all but the outputs; AdamW, warm-up, then a cosine to zero. Small models take more."""
    head_learning_rate: float = Field(default=1e-3, gt=0)
    """Of the outputs, which start from nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW, on matrices."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps that the learning rates take to rise."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts held out, on which the model is calibrated and the report measured."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints: what a kill can cost. Held-out rows are measured then, too."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between two lines of the log."""
    report_to: list[str] = []
    """Where logs go beside standard error, in transformers' words, such as tensorboard."""
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the weights are stored in. The report is measured on what is stored."""
    seed: int = 0
    """Of outputs and order, and salt of the held-out prompts."""
