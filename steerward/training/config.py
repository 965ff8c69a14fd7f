"""Settings of the training commands. Free of torch, like all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from steerward.config import Dtype, Settings


class BackboneConfig(Settings):
    """Train a small causal backbone on ratings, preference pairs and text at once.

    Heads and a gate are trained along and thrown away: they shape the hidden states from which
    `heads` and `gating` then read. Stopped runs go on from their last checkpoint.

    Examples:
      steerward train backbone --start m --ratings r.jsonl --pairs p.jsonl --objectives o --out b
    """

    start: str
    """Folder or hub id of the weights to start from, with tokenizer and chat template."""
    ratings: list[Path] = []
    """Rating file, JSON lines (also .gz) or Parquet; repeatable."""
    pairs: list[Path] = []
    """Pair file; repeatable."""
    objectives: Path
    """Objectives file: JSON, objective -> sources of its labels, categories of pairs."""
    out: Path
    """Folder for the backbone; checkpoints of the run lie beside it until it is done."""
    steps: int = Field(default=2000, ge=1)
    """Optimiser steps."""
    pairs_per_step: int = Field(default=10, ge=0)
    """Preference pairs in a step, over all processes."""
    rated_per_step: int = Field(default=20, ge=0)
    """Rated responses in a step, over all processes."""
    rated_per_prompt: int = Field(default=4, ge=1)
    """Most rated responses of one prompt in a step; they share its tokens and are compared."""
    max_tokens: int = Field(default=2048, ge=8)
    """Longer conversations are left out of training; they are never cut."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Of the backbone; AdamW, warm-up, then a cosine to zero."""
    head_learning_rate: float = Field(default=1e-3, gt=0)
    """Of heads and gate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW, on matrices."""
    warmup_share: float = Field(default=0.04, ge=0, lt=1)
    """Share of the steps that the learning rates take to rise."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of hidden states, where the backbone has it."""
    masked_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that a step hides behind the tokenizer's mask token, which it must have,
    against learning rows by heart."""
    shifted_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the prompts that a step moves to later positions, so that absolute position
    embeddings beyond the data's longest conversation are trained too."""
    freeze_embeddings: bool = True
    """Leave the token embeddings as they are."""
    rating_weight: float = Field(default=1.0, ge=0)
    """Of the squared error of ratings."""
    gate_weight: float = Field(default=1.0, ge=0)
    """Of Bradley-Terry on the gated sum of the objectives."""
    category_weight: float = Field(default=0.5, ge=0)
    """Of Bradley-Terry on the objectives that a pair's category is about."""
    within_weight: float = Field(default=0.3, ge=0)
    """Of Bradley-Terry between rated responses of one prompt."""
    language_weight: float = Field(default=0.0, ge=0)
    """Of predicting the next token of every text, with tied embeddings."""
    weights_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type that the backbone is stored in. Heads are fitted on what is stored."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the products while training; auto is bfloat16 where the processor has it."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each step; on a CPU, one thread each."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints: what a kill can cost."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts that training does not see; given the same share and seed, `heads` and
    `gating` hold out the same ones."""
    validation_steps: int = Field(default=20, ge=0)
    """Steps on held-out prompts whose losses are logged at every checkpoint; 0: none."""
    seed: int = 0
    """Of heads, order and dropout, and salt of the held-out prompts."""
    device: str = "auto"
    """Where to train: auto, cpu or cuda."""


class EmbedConfig(Settings):
    """Compute the vectors that heads and gate read, for the rows of rating and pair files.

    Writes one folder a file under --out: shards of last-token and gating-position vectors in
    safetensors. A run that was stopped goes on with the next shard.

    Examples:
      steerward train embed --backbone ./base --data rated.jsonl --data pairs.jsonl.gz --out emb
    """

    backbone: str
    """Folder or hub id of the backbone; heads in it are ignored."""
    data: list[Path] = Field(min_length=1)
    """Rating or pair file, JSON lines (also .gz) or Parquet; repeatable."""
    out: Path
    """Folder for the vectors."""
    split: str = "train"
    """Split of the rows to embed; heads and gate learn from no other than train."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most rows of a file, spread evenly over it. Default: all."""
    shard_rows: int = Field(default=2048, ge=1)
    """Rows in one shard: what a kill can cost."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Most tokens in one forward pass."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda ..."""
    dtype: Dtype = "float32"
    """Of the backbone. Packaging compares served scores in float32 with those of the vectors."""
    overwrite: bool = False
    """Compute again what is there already."""


class HeadsConfig(Settings):
    """Fit one ridge regression an objective on the vectors of rated responses.

    Labels that are missing are left out, alpha is chosen on held-out prompts, then each head is
    fitted on all training rows.

    Examples:
      steerward train heads --data rated.jsonl --embeddings emb --objectives o.json --out heads
    """

    data: list[Path] = Field(min_length=1)
    """Rating file that was embedded; repeatable."""
    pairs: list[Path] = []
    """Pair file that was embedded; pairs of a category that the objectives file names teach its
    objectives; repeatable."""
    embeddings: Path
    """Folder that `embed` wrote."""
    objectives: Path
    """Objectives file: JSON, objective -> sources of its labels, categories of pairs."""
    out: Path
    """Folder for heads.safetensors and heads.json."""
    pair_weight: float = Field(default=1.0, ge=0)
    """Weight of an objective's pairs together, as a multiple of that of its ratings; one pair
    counts at most as much as 3 ratings."""
    pair_margin: float = Field(default=1.0, ge=0)
    """By how much chosen responses should have more, in standard deviations of the labels."""
    alphas: list[float] = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4]
    """Ridge penalties to try; repeatable."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of prompts held out to choose alpha and to report correlations."""
    balance_sources: bool = True
    """Weigh rows by 1/sqrt(rows of their source), so that large sources do not rule."""
    min_spearman: float | None = None
    """Drop heads whose held-out rank correlation is below this; they are named in the report."""
    seed: int = 0
    """Salt of the split."""


class GatingConfig(Settings):
    """Fit the reward transform, then train the gate by Bradley-Terry on gated rewards.

    The loss is on exactly what is served: transformed rewards, a softmax over objectives, one
    prompt vector a pair, dropout off at evaluation. The prompts that `heads` held out are held
    out again, to find the best number of steps and to report accuracy.

    Examples:
      steerward train gating --data pairs.jsonl --embeddings emb --heads heads --out gate
    """

    data: list[Path] = Field(min_length=1)
    """Pair file that was embedded; repeatable."""
    reference: list[Path] = []
    """Rating or pair file whose training responses are the transform's reference set;
    repeatable. Default: the pair files."""
    embeddings: Path
    """Folder that `embed` wrote."""
    heads: Path
    """Folder that `heads` wrote."""
    out: Path
    """Folder for gate.safetensors and gate.json."""
    verbosity: str = "verbosity"
    """Objective to free the others from."""
    correlation_threshold: float = Field(default=0.03, ge=0, lt=1)
    """Rank correlation with verbosity at which a reward counts as free of it."""
    standardise: bool = True
    """Scale transformed rewards to spread 1 over the reference set, as part of the transform."""
    num_hidden_layers: int = Field(default=1, ge=0)
    """Hidden layers of the gate."""
    hidden_size: int = Field(default=64, ge=1)
    """Width of the hidden layers."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits before the softmax."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of hidden units dropped while training."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of AdamW, decayed to zero by a cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW."""
    steps: int = Field(default=2000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=512, ge=1)
    """Pairs in a step."""
    balance_sources: bool = True
    """Draw pairs by 1/sqrt(pairs of their source)."""
    seed: int = 0
    """Of weights and batches."""


class PackageConfig(Settings):
    """Put backbone, heads, transform and gate into one checkpoint.

    The checkpoint is loaded again, and its scores of some training rows are compared with those
    of training; if they differ it is not written.

    Examples:
      steerward train package --backbone ./base --heads heads --gate gate --out ./mine
      steerward serve --reward-model ./mine
    """

    backbone: str
    """Folder or hub id that was embedded."""
    heads: Path
    """Folder that `heads` wrote."""
    gate: Path
    """Folder that `gating` wrote."""
    out: Path
    """Folder for the checkpoint; must not exist."""
    refer: bool = False
    """Refer to the backbone by its folder or id instead of copying it."""


class EvaluateConfig(Settings):
    """Measure a reward model on rating and pair files, against baselines.

    Writes report.json and report.png: correlations by objective, pair accuracy by source with
    bootstrap intervals over prompts, length-only and other baselines, and the correlation of the
    score with length with and without the reward transform.

    Examples:
      steerward train evaluate --reward-model ./mine --data pairs.jsonl --out report
    """

    reward_model: str = "pocket"
    """Checkpoint folder, hub id or `pocket`."""
    data: list[Path] = Field(min_length=1)
    """Rating or pair file; repeatable."""
    out: Path
    """Folder for report.json and report.png."""
    objectives: Path | None = None
    """Objectives file for the labels of rating files."""
    split: str = "test"
    """Split of the rows to measure on."""
    fit_data: list[Path] = []
    """Pair file on which baselines with parameters are fitted; repeatable. Default: the pair
    files of --data."""
    fit_split: str = "train"
    """Split of it that they are fitted on (global weighting, surface features)."""
    max_fit_pairs: int = Field(default=4000, ge=0)
    """Most pairs of that split to score for the global weighting; 0 leaves it out."""
    bootstrap: int = Field(default=2000, ge=100)
    """Resamples for the intervals."""
    seed: int = 0
    """Of the resamples and of the pairs that are drawn."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Most tokens in one forward pass."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda ..."""
    dtype: Dtype = "auto"
    """Of the backbone."""
