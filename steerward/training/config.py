"""Settings of the training commands. Free of torch, like all settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from steerward.config import Dtype, Settings


class BackboneConfig(Settings):
    """Train a small causal backbone on ratings, pairs and text at once.

    Examples:
      steerward train backbone --start ./model --ratings r.jsonl --pairs p.jsonl --out ./base
    """

    start: str
    """Folder of the weights to start from."""
    out: Path
    """Folder for the backbone."""


class EmbedConfig(Settings):
    """Compute the vectors that heads and gate read, for every row of rating and pair files.

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
    shard_rows: int = Field(default=2048, ge=1)
    """Rows in one shard: what a kill can cost."""
    max_batch_tokens: int = Field(default=4096, ge=1)
    """Most tokens in one forward pass."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda ..."""
    dtype: Dtype = "auto"
    """Of the backbone; serve with the same."""
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
    embeddings: Path
    """Folder that `embed` wrote."""
    objectives: Path
    """Objectives file: JSON, objective -> sources of its labels."""
    out: Path
    """Folder for heads.safetensors and heads.json."""
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
    prompt vector a pair, dropout off at evaluation.

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
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of prompts held out to report accuracy and to keep the best step."""
    seed: int = 0
    """Of weights, batches and split."""


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
    fit_split: str = "train"
    """Split on which baselines with parameters are fitted (global weighting, surface features)."""
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
