"""TRL's GRPO and RLOO trainers with the advantages of several objectives.

TRL generates, scores and computes the loss; between the two its advantages are replaced. The
matrix of rewards is taken as TRL gathers it, before anything is added up, and given on unchanged:
``rewards/<name>/mean`` stays the mean of raw rewards, whatever weights, conditions and schedules
do, and ``reward`` their sum by the weights without a schedule.

Logged beside TRL's own: ``align/frac_nonzero``, ``align/weight/<name>``,
``align/pareto_weight/<name>`` (PAMA), ``rewards/<name>/frac_missing``, and every so many steps
``pareto/min_norm``, ``pareto/lowest_cosine``, ``pareto/weight/<name>``.

Axis legend: N samples over all processes, B samples of this one, T tokens, K objectives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.aggregation import Aggregated, Aggregation
from steerward.training.align.grpo.checks import (
    MAX_CONSTANT_STEPS,
    MAX_MISSING,
    check_idle_steps,
    check_known,
    check_names,
    check_rewards,
    constant_columns,
    constant_steps,
    newly_constant,
    ordered_weights,
)
from steerward.training.align.grpo.conditions import Condition, conditioned
from steerward.training.align.grpo.diagnostics import (
    diagnose,
    flat_gradients,
    objective_losses,
    probed_parameters,
)
from steerward.training.align.grpo.groups import leave_one_out, z_scores
from steerward.training.align.grpo.schedules import Schedule

_log = logging.getLogger(__name__)

_OBJECTIVES = "objective_advantages"
# Of a batch of pictures; what TRL passes to its forward pass.
_PICTURES = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes"),
    *("num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)


class _ObjectiveAdvantages:
    """What both trainers have in common; TRL's trainer comes next in the order of classes.

    Args:
        *given: TRL's.
        aggregation: Makes one advantage of a sample's rewards.
        weights: By column, every one of them; 0 for a column that is only logged.
        schedule: Factors of weights by share of training, for columns that have one.
        conditions: Under which columns count, on raw values.
        max_missing: Largest share of samples to which a column may not apply, or by column.
        max_constant_steps: Most generations on end from which nothing is learned.
        diagnostic_every: Steps between two measurements of the objectives' gradients, which cost
            a forward pass and as many backward passes as there are objectives; 0: none.
        **options: TRL's.

    Raises:
        InvalidRequest: If names are not unique, weights do not match them, or TRL's settings ask
            for a normalisation of their own.
    """

    # TRL's, which the class that comes next has.
    accelerator: Any
    args: Any
    model: Any
    state: Any
    num_generations: int
    num_generations_eval: int
    reward_func_names: list[str]
    reward_weights: Tensor
    _logs: dict[str, Any]
    _metrics: dict[str, Any]

    def __init__(
        self,
        *given: Any,
        aggregation: Aggregation,
        weights: Mapping[str, float],
        schedule: Mapping[str, Schedule] | None = None,
        conditions: Sequence[Condition] = (),
        max_missing: float | Mapping[str, float] = MAX_MISSING,
        max_constant_steps: int = MAX_CONSTANT_STEPS,
        diagnostic_every: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(*given, **options)
        names = self.reward_func_names
        check_names(names)
        self._refuse_own_normalisation()
        self.reward_weights = torch.tensor(ordered_weights(weights, names), dtype=torch.float32)
        check_known(schedule or {}, names, param="schedule")
        for condition in conditions:
            check_known((condition.column, condition.on), names, param="conditions")
        if not isinstance(max_missing, float | int):
            check_known(max_missing, names, param="max_missing")
        if diagnostic_every:
            self._refuse_sharded()
            probed_parameters(self.accelerator.unwrap_model(self.model))
        self._aggregation = aggregation
        self._schedule = dict(schedule or {})
        self._conditions = tuple(conditions)
        self._max_missing = max_missing
        self._max_constant_steps = max_constant_steps
        self._diagnostic_every = diagnostic_every
        self._gathered_NK: Tensor | None = None
        self._constant_steps: dict[str, int] = {}
        self._idle_steps = 0
        self._diagnosed_step = -1
        self.description: str | None = None
        """Which normalisation ran, with its epsilon; None before the first batch."""

    def _calculate_rewards(self, *given: Any, **named: Any) -> Tensor:
        """Return the rewards of all processes, as they are, and keep them."""
        rewards_NK: Tensor = super()._calculate_rewards(*given, **named)  # pyright: ignore[reportAttributeAccessIssue]
        check_rewards(rewards_NK, names=self.reward_func_names, max_missing=self._max_missing)
        self._gathered_NK = rewards_NK
        return rewards_NK

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return TRL's batch with the advantages of the aggregation."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)  # pyright: ignore[reportAttributeAccessIssue]
        rewards_NK, self._gathered_NK = self._gathered_NK, None
        assert rewards_NK is not None
        is_training = bool(self.model.training)
        group_size = self.num_generations if is_training else self.num_generations_eval
        counted_NK = conditioned(rewards_NK, self._conditions, names=self.reward_func_names)
        weights_K = self._weights().to(rewards_NK.device)
        found = self._aggregation(counted_NK, group_size=group_size, weights_K=weights_K)
        first = self.accelerator.process_index * len(inputs)
        local = slice(first, first + len(inputs))
        penalty_B = self._penalties(output, rewards_NK, group_size=group_size, local=local)
        output["advantages"] = found.advantages_N[local] + penalty_B
        self._tell(rewards_NK, found, weights_K, advantages_B=output["advantages"])
        if is_training:
            self._watch(rewards_NK, found, group_size=group_size)
            if self._diagnostic_every:
                output[_OBJECTIVES] = z_scores(counted_NK, group_size=group_size)[local]
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return TRL's loss; every so many steps, measure the objectives' gradients first."""
        inputs = dict(inputs)
        advantages_BK: Tensor | None = inputs.pop(_OBJECTIVES, None)
        step = int(self.state.global_step)
        if advantages_BK is not None and step != self._diagnosed_step:
            self._diagnosed_step = step
            if step % self._diagnostic_every == 0:
                self._diagnose(model, inputs, advantages_BK)
        return super()._compute_loss(model, inputs)  # pyright: ignore[reportAttributeAccessIssue]

    def _penalties(
        self, output: Mapping[str, Any], rewards_NK: Tensor, *, group_size: int, local: slice
    ) -> Tensor | float:
        """Return what TRL's advantages hold beside rewards."""
        del output, rewards_NK, group_size, local
        return 0.0

    def _refuse_own_normalisation(self) -> None:
        given = {"reward_weights": None, "multi_objective_aggregation": "sum_then_normalize"}
        given |= {"scale_rewards": "group", "normalize_advantages": False}
        for name, default in (given | {"reward_clip_range": None}).items():
            if getattr(self.args, name, default) != default:
                raise InvalidRequest(
                    f"{name}={getattr(self.args, name)!r} would have no effect here; leave it out, "
                    "and give weights by name and the aggregation of your choice",
                    param=name,
                )

    def _refuse_sharded(self) -> None:
        kind = str(getattr(self.accelerator.distributed_type, "value", ""))
        if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise InvalidRequest(
                f"gradients of objectives cannot be measured where {kind} shards the policy; set "
                "diagnostic_every=0",
                param="diagnostic_every",
            )

    def _weights(self) -> Tensor:
        share = min(self.state.global_step / max(self.state.max_steps, 1), 1.0)
        factors = [
            self._schedule[name](share) if name in self._schedule else 1.0
            for name in self.reward_func_names
        ]
        return self.reward_weights.cpu() * torch.tensor(factors, dtype=torch.float32)

    def _tell(
        self, rewards_NK: Tensor, found: Aggregated, weights_K: Tensor, *, advantages_B: Tensor
    ) -> None:
        if self.description is None:
            self.description = found.description
            if self.accelerator.is_main_process:
                _log.info("advantages: %s", found.description)
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in found.metrics.items():
            metrics[f"align/{name}"].append(value)
        for k, name in enumerate(self.reward_func_names):
            metrics[f"align/weight/{name}"].append(float(weights_K[k]))
            missing = float(rewards_NK[:, k].isnan().float().mean())
            metrics[f"rewards/{name}/frac_missing"].append(missing)
            if found.weights_K is not None:
                metrics[f"align/pareto_weight/{name}"].append(float(found.weights_K[k]))
        # TRL has put its own into the table of completions.
        table, gathered = self._logs["advantages"], self.accelerator.gather(advantages_B).tolist()
        for _ in range(min(len(gathered), len(table))):
            table.pop()
        table.extend(gathered)

    def _watch(self, rewards_NK: Tensor, found: Aggregated, *, group_size: int) -> None:
        names, limit = self.reward_func_names, self._max_constant_steps
        constant = constant_columns(rewards_NK, group_size=group_size, names=names)
        used = {n for n, w in zip(names, self.reward_weights.tolist(), strict=True) if w}
        self._constant_steps = constant_steps(self._constant_steps, constant & used)
        for name in newly_constant(self._constant_steps, limit=limit):
            _log.warning("reward %s was the same within every group for %d steps", name, limit)
        is_idle = not bool((found.advantages_N != 0).any())
        self._idle_steps = self._idle_steps + 1 if is_idle else 0
        check_idle_steps(self._idle_steps, limit=limit, constant=constant & used)

    def _diagnose(self, model: Any, inputs: Mapping[str, Any], advantages_BK: Tensor) -> None:
        """Log how the objectives' gradients lie to each other, on an adapter or the last layer."""
        bare = self.accelerator.unwrap_model(model)
        mask_BT = inputs["completion_mask"]
        logps_BT = self._get_per_token_logps_and_entropies(  # pyright: ignore[reportAttributeAccessIssue]
            bare,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], mask_BT], dim=1),
            inputs["completion_ids"].size(1),
            **{name: inputs.get(name) for name in _PICTURES},
        )[0]
        if "tool_mask" in inputs:
            mask_BT = mask_BT * inputs["tool_mask"]
        ratios_BT = _ratios(inputs, logps_BT.detach(), mask_BT)
        losses_K = objective_losses(advantages_BK, logps_BT, mask_NT=mask_BT, ratios_NT=ratios_BT)
        gradients_KD = flat_gradients(losses_K, probed_parameters(bare))
        found = diagnose(self.accelerator.reduce(gradients_KD, reduction="mean"))
        metrics = self._metrics["train"]
        metrics["pareto/min_norm"].append(found.min_norm)
        metrics["pareto/lowest_cosine"].append(found.lowest_cosine)
        for name, weight in zip(self.reward_func_names, found.weights_K.tolist(), strict=True):
            metrics[f"pareto/weight/{name}"].append(weight)


def _ratios(inputs: Mapping[str, Any], logps_BT: Tensor, mask_BT: Tensor) -> Tensor | None:
    """Return pi / pi_old, of tokens for GRPO and of the sequence for RLOO; None on-policy."""
    old_BT = inputs.get("old_per_token_logps")
    if old_BT is not None:
        return torch.exp(logps_BT - old_BT)
    if "old_logps" in inputs:
        return torch.exp(
            (logps_BT * mask_BT).sum(dim=-1, keepdim=True) - inputs["old_logps"][:, None]
        )
    return None


class MultiObjectiveGRPOTrainer(_ObjectiveAdvantages, GRPOTrainer):
    """GRPO on several objectives; see the module and `_ObjectiveAdvantages` for what it takes.

    TRL's ``loss_type`` and its clipping stay. With `aggregation.Min` that is PAMA's clipped loss:
    where no advantage is negative only the upper clip bites.
    """


class MultiObjectiveRLOOTrainer(_ObjectiveAdvantages, RLOOTrainer):
    """RLOO's loss of whole sequences on several objectives.

    The baseline is the aggregation's mean of the group, the sample included; leaving it out, as
    RLOO does, multiplies advantages by ``G / (G - 1)`` and changes nothing else. TRL counts the KL
    penalty as a part of the reward: it is added to the aggregated advantages as RLOO has it, less
    its own leave-one-out mean. `beta` is therefore to the scale of the aggregation.
    """

    def _penalties(
        self, output: Mapping[str, Any], rewards_NK: Tensor, *, group_size: int, local: slice
    ) -> Tensor | float:
        if self.beta == 0.0:
            return 0.0
        sums_N = (rewards_NK * self.reward_weights.to(rewards_NK.device)).nansum(dim=-1)
        sums_N = sums_N.masked_fill(rewards_NK.isnan().all(dim=-1), torch.nan)
        # Linear in the rewards: what is left of TRL's advantages is the penalty's part.
        return output["advantages"] - leave_one_out(sums_N, group_size=group_size)[local]
