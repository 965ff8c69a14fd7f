"""MGDA on GRPO: each step's weights are those of the shortest combination of full gradients.

Sener and Koltun's method (arXiv:1810.04650, section 3.1) as it would be put on TRL: a backward
pass through the whole policy for the loss of each objective, the products of the gradients, and
weights by Frank-Wolfe; then TRL's own loss on the objectives' advantages so weighted, whose
gradient on-policy is the weighted sum of theirs. Advantages are z-scores in their groups, as for
GDPO and PAMA, and nothing is clipped to 0.

Logged, in time of the processor: `align/weights_ms`, the backward passes and what follows, without
the forward pass before them, `mgda/forward_ms`, which a tighter program would share with the loss.
Also `mgda/min_norm`, of losses that are means over samples of sums over tokens, and
`align/pareto_weight/<name>`.

Axis legend: B samples, T tokens, K objectives, D numbers of the parameters.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_config import GRPOConfig

from benchmarks.objective_runs import CpuTime
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.aggregation import mo_grpo
from steerward.training.align.grpo.diagnostics import flat_gradients, objective_losses
from steerward.training.align.grpo.groups import z_scores
from steerward.training.align.grpo.pareto import min_norm_weights
from steerward.training.align.grpo.trainer import MultiObjectiveGRPOTrainer
from steerward.training.align.online import OnlineRun, as_dataset
from steerward.training.align.online_settings import online_arguments
from steerward.training.align.policies import load_policy

_ADVANTAGES = "mgda_advantages"


class MgdaTrainer(MultiObjectiveGRPOTrainer):
    """GRPO whose objectives are weighted by the shortest combination of their gradients.

    Args:
        *given: TRL's.
        **options: TRL's, and those of `MultiObjectiveGRPOTrainer`; weights are 1.

    Raises:
        InvalidRequest: If a batch is not one forward pass of one process, or weights are not 1.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, aggregation=mo_grpo(), **options)
        if self.args.gradient_accumulation_steps > 1 or self.accelerator.num_processes > 1:
            raise InvalidRequest(
                "MGDA's weights would be those of a part of the batch; train in one process, with "
                "gradient_accumulation_steps=1"
            )
        if bool((self.reward_weights != 1).any()):
            raise InvalidRequest(f"MGDA has no weights; {self.reward_weights.tolist()} are not 1")
        self._rewards_BK: Tensor | None = None

    def _calculate_rewards(self, *given: Any, **named: Any) -> Tensor:
        self._rewards_BK = super()._calculate_rewards(*given, **named)
        return self._rewards_BK

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        rewards_BK, self._rewards_BK = self._rewards_BK, None
        assert rewards_BK is not None
        advantages_BK = z_scores(rewards_BK, group_size=self.num_generations)
        output[_ADVANTAGES] = advantages_BK.nan_to_num(nan=0.0)
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        inputs = dict(inputs)
        advantages_BK: Tensor = inputs.pop(_ADVANTAGES)
        weights_K = self._shortest(model, inputs, advantages_BK)
        inputs["advantages"] = advantages_BK @ weights_K.to(advantages_BK.dtype)
        metrics = self._metrics["train"]
        metrics["align/frac_nonzero"][-1] = float((inputs["advantages"] != 0).float().mean())
        for name, weight in zip(self.reward_func_names, weights_K.tolist(), strict=True):
            metrics[f"align/pareto_weight/{name}"].append(weight)
        return super()._compute_loss(model, inputs)

    def _shortest(self, model: Any, inputs: dict[str, Any], advantages_BK: Tensor) -> Tensor:
        """Return the weights of the shortest combination of the objectives' gradients, (K,)."""
        started = time.process_time()
        mask_BT = inputs["completion_mask"]
        logps_BT = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], mask_BT], dim=1),
            inputs["completion_ids"].size(1),
        )[0]
        losses_K = objective_losses(advantages_BK, logps_BT, mask_NT=mask_BT)
        read = time.process_time()
        learning = [one for one in model.parameters() if one.requires_grad]
        gradients_KD = flat_gradients(losses_K, learning)
        weights_K, min_norm = shortest(gradients_KD)
        metrics = self._metrics["train"]
        metrics["mgda/forward_ms"].append(1e3 * (read - started))
        metrics["align/weights_ms"].append(1e3 * (time.process_time() - read))
        metrics["mgda/min_norm"].append(min_norm)
        return weights_K


def shortest(gradients_KD: Tensor) -> tuple[Tensor, float]:
    """Return the weights of the shortest convex combination of gradients, (K,), and its length.

    An objective whose gradient is exactly 0 says nothing in this batch, and is left out: the
    shortest combination would be 0 whatever the others want.

    Args:
        gradients_KD: One flat gradient a row.
    """
    gram_KK = (gradients_KD @ gradients_KD.T).double()
    there = gram_KK.diagonal().nonzero().flatten()
    weights_K = torch.zeros_like(gram_KK[0])
    if len(there):
        weights_K[there] = min_norm_weights(gram_KK[there][:, there])
    return weights_K, float((weights_K @ gram_KK @ weights_K).clamp(min=0).sqrt())


class MgdaRun(OnlineRun):
    """A run of Steerward with MGDA's trainer, for settings of GRPO."""

    def _trainer(self, runs: Path) -> Any:
        model = load_policy(self._run.base, self._settings, self._device)
        arguments = online_arguments(
            self._settings, runs, parameters=model.num_parameters(), processes=self._state
        )
        trainer = MgdaTrainer(
            model=model,
            reward_funcs=list(self._columns.functions),
            args=GRPOConfig(**arguments),
            train_dataset=as_dataset(self._rows),
            processing_class=self._tokenizer,
            weights=self._columns.weights,
        )
        trainer.add_callback(CpuTime(trainer))
        return trainer
