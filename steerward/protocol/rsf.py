"""Settings of rejection-sampling fine-tuning (RSF): what a job's ``method.rsf`` holds.

DPA (arXiv:2402.18571): directions and prompts are drawn, the policy samples several completions
for each pair, the reward model scores them, the best by ``v . r`` are kept, the policy is
fine-tuned on them, and so on. The paper gives no values for most of what follows; the defaults
are ours.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steerward.protocol.scoring import Direction
from steerward.protocol.wire import RequestModel, Text

MOST_COMPLETIONS = 2_000_000
"""That may be drawn in one iteration."""

_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Pattern = Annotated[Text, Field(min_length=1, max_length=1000)]


class LoraSettings(RequestModel):
    """Low-rank adapters in place of all weights."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Of the update of each matrix."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | list[Text] = "all-linear"
    """Names of the layers that get one."""


class TrainingSettings(RequestModel):
    """How the policy is fine-tuned on the selected completions of an iteration."""

    method: Literal["full", "lora"] = "full"
    """All weights, or a LoRA adapter that goes on from iteration to iteration."""
    lora: LoraSettings = LoraSettings()
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak; it rises over the warm-up and falls linearly to 0. Default: for LoRA 1e-4; for all
    weights 5e-6 at 8 billion parameters and more for smaller ones, by the power 0.7 of their
    number."""
    warmup_share: _Share = 0.1
    """Of the steps."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the selected completions."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Completions in one optimiser step, over all devices."""
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Completions in one forward pass on each device; lower saves memory. Default: the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the policy that the job began with, added to the loss; 0
    leaves it out."""
    checkpoint_steps: _Count = 200
    """Optimiser steps after which training could go on if it were killed."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        micro = self.micro_batch_size
        if micro is not None and self.batch_size % micro:
            raise ValueError(
                f"micro_batch_size {micro} does not divide batch_size {self.batch_size}"
            )
        return self


class RsfSettings(RequestModel):
    """Rejection-sampling fine-tuning, one field a decision."""

    iterations: Annotated[int, Field(ge=1, le=1000)] = 3
    """Times that sampling, scoring, selection and fine-tuning follow each other."""
    prompts_per_iteration: _Count = 256
    """Prompts drawn from the training file for each iteration, all different while there are
    enough."""
    candidates_per_prompt: Annotated[int, Field(ge=1, le=128)] = 8
    """Completions for each prompt and direction."""
    directions: (
        Annotated[int, Field(ge=1, le=1000)]
        | Annotated[list[Direction], Field(min_length=1, max_length=1000, fail_fast=True)]
    ) = 8
    """Preference directions to train on: a list, or how many to make (see `spread`)."""
    spread: Literal["grid", "arc", "dirichlet"] = "grid"
    """How a number of directions is made. grid: at even angles over the cone, both ends among
    them; arc: at random angles of the cone, new ones in each iteration; dirichlet: random
    non-negative weights over all objectives of the policy, new ones in each iteration."""
    cone_deg: Annotated[float, Field(gt=0, le=180)] | None = None
    """Greatest angle of grid and arc. Default: what the policy's rule allows."""
    directions_per_prompt: Annotated[int, Field(ge=1, le=1000)] = 1
    """Directions under which a prompt is sampled in one iteration; they take turns."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of sampling. Lower is closer to what is served, and leaves less to choose from."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: _Count = 256
    """Longest completion."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Prompts that are sampled and scored at the same time."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of everything that is drawn. Default: the job's own seed, else 0."""
    reward_model: Text | None = None
    """Name of a reward model of the server. Default: its first; `steerward rsf` wants the name
    where there are several."""

    pool: Literal["direction", "prompt"] = "direction"
    """Which completions compete for a direction: those drawn for it, or all of the prompt. The
    second makes more of each sample: a completion may win under a direction that it was not
    drawn for."""
    reward_scale: Literal["reference", "prompt", "raw"] = "reference"
    """Scale on which v . r compares objectives: spread over the reward model's reference set
    (as `direction_score` does), spread over the completions of the prompt, or as the heads give
    them."""
    selection: Literal["argmax", "top_k", "threshold", "margin"] = "argmax"
    """Which of a pool are kept: the best; the `top_k` best; all with at least `threshold`; the
    best, if it is at least `margin` above the pool's mean."""
    top_k: Annotated[int, Field(ge=1, le=128)] | None = None
    threshold: float | None = None
    margin: Annotated[float, Field(ge=0)] | None = None
    max_per_direction: _Count | None = None
    """Most completions kept for one direction in one iteration: those furthest above their
    pool's mean."""
    deduplicate: bool = True
    """Let equal completions of one pool, but for spaces and case, compete once."""
    require_finished: bool = True
    """Leave out completions that were cut at `max_tokens`."""
    min_tokens: Annotated[int, Field(ge=0)] = 2
    """Leave out shorter ones; the closing token counts."""
    max_repetition: _Share | None = 0.5
    """Leave out completions of which a larger share of three-word sequences is a repeat."""
    must_match: _Pattern | None = None
    """Regular expression that a completion must contain."""
    must_not_match: _Pattern | None = None
    """Regular expression that a completion must not contain."""

    sft_file: Text | None = None
    """Id of a file with conversations, {"messages": [...]} ending with the assistant's turn, to
    mix into fine-tuning."""
    sft_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the fine-tuning examples that come from `sft_file`."""
    training: TrainingSettings = TrainingSettings()

    evaluation_prompts: Annotated[int, Field(ge=0, le=100_000)] = 64
    """Prompts on which the policy is measured before the first and after each iteration: from the
    validation file, else held out from the training file, but never more than a tenth of it.
    0 measures nothing."""
    evaluation_directions: Annotated[int, Field(ge=1, le=1000)] = 5
    """Directions to measure: at even angles over the cone; with another number of objectives than
    two, random ones."""
    evaluation_temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    keep: Literal["best", "last"] = "best"
    """Which iteration becomes the fine-tuned model: that with the highest mean direction score on
    the evaluation prompts, or the last."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop after so many iterations without a higher mean direction score."""
    max_sampled_tokens: Annotated[int, Field(ge=1)] | None = None
    """Begin no further iteration when so many tokens have been sampled."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Begin no further iteration when the job has run so long."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("top_k", "threshold", "margin"):
            given = getattr(self, name) is not None
            if given and self.selection != name:
                raise ValueError(f"{name} is for selection {name!r}, not {self.selection!r}")
            if not given and self.selection == name:
                raise ValueError(f"selection {name!r} needs {name}")
        self._check_completions()
        if (self.sft_share > 0) != (self.sft_file is not None):
            raise ValueError("sft_share and sft_file go together; give both or neither")
        if self.early_stopping_patience is not None and not self.evaluation_prompts:
            raise ValueError("early stopping needs evaluation_prompts above 0")
        if isinstance(self.directions, list) and self.spread != "grid":
            raise ValueError("spread makes directions; leave it out where they are listed")
        return self

    def _check_completions(self) -> None:
        factors = {
            name: getattr(self, name)
            for name in ("prompts_per_iteration", "directions_per_prompt", "candidates_per_prompt")
        }
        product = math.prod(factors.values())
        if product > MOST_COMPLETIONS:
            words = " x ".join(f"{name} {value:,}" for name, value in factors.items())
            raise ValueError(
                f"{words} are {product:,} completions in one iteration, limit "
                f"{MOST_COMPLETIONS:,}; lower one of them, and make more iterations"
            )
