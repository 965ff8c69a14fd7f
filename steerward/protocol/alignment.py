"""Settings of the optimisers for several objectives: PAMA, multi-objective GRPO, CGPO, MODPO.

Each is what a job's ``method`` holds under its name, and what ``steerward align`` takes as flags.
The papers give few values; where they give none, the defaults are ours.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from steerward.protocol.rsf import LoraSettings
from steerward.protocol.wire import RequestModel, Text

AlignMethod = Literal["pama", "grpo", "cgpo", "modpo", "mapl"]
ON_PREFERENCES: frozenset[str] = frozenset({"modpo", "mapl"})
"""Methods whose rows are preference pairs; those of the others are prompts."""
SCORE = "score"
"""Column of the reward model's gated score."""

_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Judge = dict[str, Any]
"""Settings of a judge: `type`, and what that kind takes; see `steerward.judges`."""
_Weights = Annotated[dict[Text, float], Field(min_length=1, max_length=100)]
_MOST_COMPLETIONS = 65_536


class PolicyTraining(RequestModel):
    """How the policy's weights are changed, whatever the optimiser."""

    model_config = ConfigDict(allow_inf_nan=False)

    reward_model: Text | None = None
    """Name of a reward model of the server. Default: its first."""
    method: Literal["full", "lora"] = "full"
    """All weights, or a LoRA adapter."""
    lora: LoraSettings = LoraSettings()
    """Of method `lora`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak. Default: for LoRA 1e-5; for all weights 1e-6 at 8 billion parameters and more for
    smaller ones, by the power 0.7 of their number."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the learning rate after the warm-up."""
    warmup_share: _Share = 0.0
    """Of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""
    micro_batch_size: _Count | None = None
    """Completions in one forward pass on each device; lower saves memory. Default: the batch."""
    checkpoint_steps: _Count = 50
    """Optimiser steps after which training could go on if it were killed."""
    evaluation_prompts: Annotated[int, Field(ge=0, le=100_000)] = 64
    """Held-out prompts that the policy answers before, while and after it is trained: from the
    validation file, else from the training file, but never more than a tenth of it."""
    evaluation_steps: _Count = 20
    """Optimiser steps between these."""
    max_tokens: _Count = 256
    """Longest completion."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of sampling."""
    logged: Annotated[list[Text], Field(max_length=100)] = []
    """Further objectives, to be logged and measured only."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of everything that is drawn."""


class OnlineSettings(PolicyTraining):
    """What the optimisers share that sample from the policy as it learns."""

    steps: _Count = 100
    """Optimiser steps, if every batch is used once."""
    prompts_per_step: _Count = 8
    """Prompts of one batch, over all devices."""
    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Completions of one prompt, which are compared with each other."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of sampling."""
    updates_per_batch: Annotated[int, Field(ge=1, le=100)] = 1
    """Optimiser steps on one batch; above 1 the ratio to the sampling policy is clipped."""
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Of that ratio."""
    max_missing_share: _Share = 0.1
    """Largest share of a batch whose reward may be missing, for example of completions that are
    too long for the reward model."""
    max_idle_steps: _Count = 20
    """Batches in a row from which nothing is learned, before the run ends."""

    @model_validator(mode="after")
    def _batch_is_small(self) -> Self:
        completions = self.prompts_per_step * self.group_size
        if completions > _MOST_COMPLETIONS:
            raise ValueError(
                f"prompts_per_step {self.prompts_per_step} x group_size {self.group_size} are "
                f"{completions:,} completions, limit {_MOST_COMPLETIONS:,}; make more steps"
            )
        return self


class WeightedSettings(OnlineSettings):
    """What GRPO and PAMA share: objectives with weights."""

    weights: _Weights = {SCORE: 1.0}
    """Rewards to train on, with their weights: objectives of the reward model, or `score`, the
    gated one. Below 0: less of it is better."""
    rules: Annotated[dict[Text, _Judge], Field(max_length=32)] = {}
    """Further rewards by name, for weights and logged: judges, which give 1 where a completion
    passes, 0 where it fails, and nothing where they do not apply to its row."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the policy at the start. As in TRL: rloo takes it off the
    rewards; grpo adds it to the loss, by GRPO's estimate of each token, times the ratio to the
    sampling policy, which makes its gradient unbiased (arXiv:2512.02556)."""

    @field_validator("weights")
    @classmethod
    def _are_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight == 0:
                raise ValueError(
                    f"the weight of {name!r} is {weight}; give a number other than 0, or put the "
                    "name into logged"
                )
        return weights

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if set(self.weights) & set(self.logged) or len(set(self.logged)) < len(self.logged):
            raise ValueError("weights and logged name an objective twice; name each once")
        for name in self.rules:
            if name not in self.weights and name not in self.logged:
                raise ValueError(f"the rule {name!r} is in neither weights nor logged; add it")
        return self


class Condition(RequestModel):
    """A reward that counts only where another is high enough (GDPO, arXiv:2601.05242)."""

    model_config = ConfigDict(allow_inf_nan=False)

    objective: Text
    """That counts as 0 elsewhere."""
    needs: Text
    """The other one."""
    at_least: float
    """Of its value; where it has a weight below 0, of minus its value."""


class GrpoSettings(WeightedSettings):
    """Multi-objective GRPO: how rewards of a group become one advantage."""

    aggregation: Literal[
        "sum_then_normalize", "normalize_then_sum", "mo_grpo", "softmin", "min"
    ] = "normalize_then_sum"
    """sum_then_normalize: z-score of the weighted sum (GRPO, arXiv:2503.21819);
    normalize_then_sum: weighted sum of z-scores, then whitening over the batch (GDPO,
    arXiv:2601.05242); mo_grpo: the same without whitening (arXiv:2509.22047); softmin, min: of the
    z-scores, so that all objectives must be met."""
    scaling: Literal["group", "batch", "none"] = "group"
    """What a reward's distance from its group's mean is divided by: the spread of the group, of
    the batch, or nothing. Batch suits rewards that are rarely anything but 0."""
    softmin_k: Annotated[float, Field(gt=0)] = 1.0
    """Of softmin: towards 0 it is the mean, high it is the smallest."""
    conditions: Annotated[list[Condition], Field(max_length=100)] = []
    """Rewards that count only where another is high enough."""
    final_weights: _Weights | None = None
    """Weights at the end of training; the same names. The logs show raw rewards throughout."""
    weight_schedule: Literal["linear", "cosine"] = "linear"
    """The way to them."""
    estimator: Literal["grpo", "rloo"] = "grpo"
    """TRL's trainer: GRPO or RLOO."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = {*self.weights, *self.logged}
        for place, condition in enumerate(self.conditions):
            for name in (condition.objective, condition.needs):
                if name not in names:
                    raise ValueError(
                        f"conditions[{place}] names {name!r}, which is in neither weights nor "
                        "logged; add it"
                    )
        if self.final_weights is not None and set(self.final_weights) != set(self.weights):
            raise ValueError("final_weights and weights name other objectives; name the same")
        for name, last in (self.final_weights or {}).items():
            if not math.isfinite(last) or last * self.weights[name] < 0:
                raise ValueError(
                    f"the weight of {name!r} would go from {self.weights[name]} to {last}; give a "
                    "number on the same side of 0"
                )
        return self


class PamaSettings(WeightedSettings):
    """PAMA (arXiv:2508.07768): each sample is reinforced as far as its worst objective allows."""

    granularity: Literal["sample", "batch"] = "sample"
    """sample: the minimum over a sample's advantages (Theorem 1); batch: one convex combination
    for all samples, of the smallest norm in advantage space (ours)."""
    standardise: Literal["group", "batch", "none"] = "group"
    """Spread that advantages are divided by first: without, the reward of the smallest spread
    always decides."""
    noon: bool = True
    """Clip negative advantages to 0, as the paper does."""
    softmin_k: Annotated[float, Field(gt=0)] | None = None
    """Soft minimum in place of the minimum (RVPO, arXiv:2605.05750). Default: the minimum."""
    diagnostic_steps: _Count | None = None
    """Steps between measurements of the smallest norm of a convex combination of all objectives'
    gradients, on some of the weights; each costs a backward pass an objective. Default: never."""
    estimator: Literal["grpo", "rloo"] = "grpo"
    """TRL's trainer: GRPO or RLOO."""

    @model_validator(mode="after")
    def _has_objectives(self) -> Self:
        if self.softmin_k is not None and self.granularity == "batch":
            raise ValueError("softmin_k is of granularity sample; leave one out")
        return self


class CgpoTask(RequestModel):
    """What is special to the prompts of one task (CGPO, arXiv:2409.20370, section 4.2)."""

    model_config = ConfigDict(allow_inf_nan=False)

    reward: Text = SCORE
    """Objective of the reward model that is optimised, or `score`."""
    judges: Annotated[list[_Judge], Field(max_length=32)] = []
    """Of which all that apply must pass: objects with `type` and what that kind takes."""
    optimizer: Literal["crpg", "codpo", "crraft"] = "crpg"
    """Policy gradient, online DPO, or ranked fine-tuning, each constrained."""
    num_samples: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Completions of a prompt that count. Default: all of the group."""
    max_kl: Annotated[float, Field(gt=0)] = 20.0
    """Log-ratio of a whole completion to the policy at the start, in nats, at which crpg's reward
    is 0 and from which crraft drops it. Ours."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Of codpo. Ours."""
    likelihood_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of codpo: of the likelihood of what is chosen, lambda. Ours."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Of the task's gradient in the sum, rho. Ours."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the prompts of each batch; every task has one or none has. Default: equal shares."""


class CgpoSettings(OnlineSettings):
    """CGPO (arXiv:2409.20370): a reward that counts where every judge passes."""

    tasks: Annotated[dict[Text, CgpoTask], Field(min_length=1, max_length=100)] = {
        "default": CgpoTask()
    }
    """By name. With more than one, each row of the prompts names its own as `task`."""
    baseline: Literal["generated", "row"] = "generated"
    """The response that a reward is calibrated by: one of the policy at the start, or the row's
    `baseline`."""
    max_failure_rate: _Share = 0.1
    """Of a judge that cannot decide, before the run ends."""

    @model_validator(mode="after")
    def _tasks_fit_together(self) -> Self:
        shares = [task.share is not None for task in self.tasks.values()]
        if any(shares) and not all(shares):
            raise ValueError("some tasks have a share and some have none; give all of them one")
        for name, task in self.tasks.items():
            if task.num_samples is not None and task.num_samples > self.group_size:
                raise ValueError(
                    f"task {name!r} uses {task.num_samples} completions of a prompt, and "
                    f"group_size is {self.group_size}; raise it, or lower num_samples"
                )
            if task.optimizer == "codpo" and self.updates_per_batch > 1:
                raise ValueError(
                    f"task {name!r} is optimised by codpo, which learns from its own samples "
                    "alone; leave updates_per_batch at 1"
                )
        return self


class ModpoSettings(PolicyTraining):
    """MODPO (arXiv:2310.03708): preferences of one objective, rewards of the others as margins."""

    margins: _Weights
    """Other objectives, each with its weight: of the reward model, or columns
    `margin_chosen` and `margin_rejected` of the rows."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Of the objective that the pairs prefer, w_k."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Of DPO."""
    loss: Literal["sigmoid", "hinge"] = "sigmoid"
    """As in the paper's code."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """Passes over the pairs."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Pairs in one optimiser step, over all devices."""

    @model_validator(mode="after")
    def _margins_are_numbers(self) -> Self:
        for name, weight in self.margins.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of the margin {name!r} is {weight}; give a number")
        if set(self.margins) & set(self.logged):
            raise ValueError("margins and logged name an objective twice; name each once")
        return self

    def swept(self, weight: float) -> ModpoSettings:
        """Return these settings with another weight of the preferred objective.

        The margins' weights share what is left of 1 in their proportions.

        Raises:
            ValueError: If the weight is not above 0 and at most 1, or no margin has one.
        """
        if not 0 < weight <= 1:
            raise ValueError(
                f"a weight of {weight:g} cannot be swept to: give numbers above 0, up to 1; at 0 "
                "the policy is the one that its margins prefer, trained by DPO on their pairs"
            )
        total = sum(abs(value) for value in self.margins.values())
        if total == 0:
            raise ValueError("all margins have weight 0; there is nothing to share the rest of 1")
        rest = {name: value / total * (1 - weight) for name, value in self.margins.items()}
        return self.model_copy(update={"weight": weight, "margins": rest})
