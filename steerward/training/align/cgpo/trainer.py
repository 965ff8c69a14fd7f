"""CGPO on TRL's GRPO: the same samples and the same loss, with the advantages of the paper.

"The Perfect Blend" (arXiv:2409.20370). Three methods of TRL are wrapped: what they compute is
stashed or edited, and nothing of theirs is copied. The loss is `dr_grpo` without a KL term, so that
on-policy its gradient is exactly sum_l rho_l g_l; KL_max of each task takes the place of the
penalty.

Rows need the columns `prompt`, `task`, `baseline_reward`, and for CRRAFT `baseline` and
`baseline_satisfied`; `steerward.training.align.cgpo.baselines` makes those of the baseline. The
reference is what `model.config._name_or_path` loads, or the base of an adapter: the policy must
lie on disk where it was loaded from, and a run is resumed with the same model it began with, not
with its checkpoint as the model.

Axis legend: B samples of this process, N samples of all processes, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import pad

from steerward.protocol.errors import InvalidRequest, TrainingFailed
from steerward.training.align.cgpo.batch import Batch, weigh
from steerward.training.align.cgpo.judging import Verdicts, judge_batch, judge_metrics
from steerward.training.align.cgpo.settings import check_rows, prepared
from steerward.training.align.cgpo.tasks import (
    COLUMN,
    RewardFunction,
    Task,
    check_tasks,
    stratified_order,
    task_places,
    task_rewards,
)

Inputs = list[dict[str, Any]]


class CGPOTrainer(GRPOTrainer):
    """Trains a policy by CGPO; whatever it is not told here is as in TRL's GRPOTrainer.

    Args:
        model: Policy, or the folder or name of one; its reference is loaded from there too.
        reward_funcs: Named reward columns; those of no task are logged only.
        tasks: What is optimised; with several, batches hold them in their shares, in an order
            that is drawn once and repeated each epoch.
        args: `loss_type="dr_grpo"`; `beta` is left at 0, for the trainer sets it.
        train_dataset: Rows with the columns above.
        eval_dataset: The same, or None.
        allow_off_policy: Train CODPO on samples of older weights, which makes its gradient a
            clipped surrogate of another objective.
        max_missing: Largest share of a task's samples in a batch whose reward may be missing.
        max_violated_batches: How many batches in a row may leave nothing to reinforce before the
            run ends. The default is ours.
        options: Of GRPOTrainer.

    Raises:
        InvalidRequest: If settings, tasks and rewards do not fit together.
        DatasetRefused: If rows lack a task or a baseline.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Sequence[RewardFunction],
        *,
        tasks: Sequence[Task],
        args: GRPOConfig,
        train_dataset: Dataset,
        eval_dataset: Any = None,
        allow_off_policy: bool = False,
        max_missing: float = 0.0,
        max_violated_batches: int = 10,
        **options: Any,
    ) -> None:
        settings = prepared(args, tasks, allow_off_policy=allow_off_policy)
        if not all(hasattr(function, "__name__") for function in reward_funcs):
            raise InvalidRequest(
                "a reward is no function with a name, and tasks name their rewards; wrap a reward "
                "model in a function",
                param="reward_funcs",
            )
        names = [function.__name__ for function in reward_funcs]
        check_tasks(tasks, reward_names=names, num_generations=settings.num_generations)
        for rows in (train_dataset, eval_dataset):
            check_rows(rows, tasks)
        self.tasks = tuple(tasks)
        self._columns = [names.index(task.reward) for task in tasks]
        self._max_missing = max_missing
        self._max_violated_batches = max_violated_batches
        self._violated_batches = 0
        if len(tasks) > 1:
            train_dataset = train_dataset.select(_order(train_dataset, tasks, settings))
        super().__init__(
            model=model,
            reward_funcs=task_rewards(reward_funcs, tasks),
            args=settings,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **options,
        )
        # The rows are in their order already.
        self.shuffle_dataset = self.shuffle_dataset and len(tasks) == 1

    @property
    def _policy(self) -> Any:
        return self.model

    @property
    def _group_size(self) -> int:
        train = self._policy.training
        return cast(int, self.num_generations if train else self.num_generations_eval)

    @property
    def _most_tokens(self) -> int:
        return cast(int, self.max_completion_length)

    def _calculate_rewards(
        self, inputs: Inputs, prompts: list[Any], completions: list[Any], completion_ids_list: Any
    ) -> Tensor:
        """Return TRL's rewards; they are kept, with what the judges say."""
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        places = task_places([row.get(COLUMN) for row in inputs], self.tasks)
        start = self.accelerator.process_index * len(inputs)
        used = [
            place if (start + i) % self._group_size < self._num_used(place) else None
            for i, place in enumerate(places)
        ]
        verdicts = judge_batch(
            self.tasks, used, prompts=prompts, completions=completions, rows=inputs
        )
        self._found: tuple[Tensor, list[int], Verdicts] = (rewards, places, verdicts)
        return rewards

    def _num_used(self, place: int) -> int:
        return self.tasks[place].num_samples or self._group_size

    def _generate_and_score_completions(self, inputs: Inputs) -> dict[str, Any]:
        """Return TRL's batch with the advantages of each sample's task."""
        output = super()._generate_and_score_completions(inputs)
        if "pixel_values" in output:
            raise InvalidRequest("the prompts hold images, which CGPO does not train on here")
        batch, counts = self._gathered(inputs, output)
        weighed = weigh(
            batch,
            self.tasks,
            num_generations=self._group_size,
            max_completion_length=self._most_tokens,
            max_missing=self._max_missing,
        )
        self._log_batch({**weighed.metrics, **judge_metrics(counts)})
        self._end_if_violated(weighed.has_signal)
        start = self.accelerator.process_index * len(inputs)
        own = slice(start, start + len(inputs))
        output["advantages"] = weighed.advantages_N[own]
        # All processes do the same forward passes, or those that shard weights would wait for ever.
        if (weighed.baselines_N > 0).any():
            output |= self._baseline_tensors(inputs, weighed.baselines_N[own])
        return output

    def _gathered(
        self, inputs: Inputs, output: Mapping[str, Any]
    ) -> tuple[Batch, list[Mapping[str, int]]]:
        """Return what is known of the samples of all processes, and the verdicts by process."""
        rewards, places, verdicts = self._found
        mask_BT = _loss_mask(output)
        columns = (
            torch.tensor(places),
            torch.tensor([row["baseline_reward"] for row in inputs]),
            torch.tensor([bool(row.get("baseline_satisfied")) for row in inputs]),
            torch.tensor(verdicts.satisfied),
            self._log_ratios(output, mask_BT),
            mask_BT.sum(dim=-1),
        )
        device = self.accelerator.device
        known = torch.stack([column.to(device, torch.float32) for column in columns], dim=-1)
        tasks_N, baselines_N, passing_N, satisfied_N, ratios_N, tokens_N = self.accelerator.gather(
            known
        ).unbind(dim=-1)  # pyright: ignore
        chosen_N = torch.tensor(self._columns, device=device)[tasks_N.long()]
        batch = Batch(
            tasks_N=tasks_N.long(),
            rewards_N=rewards.gather(-1, chosen_N.unsqueeze(-1)).squeeze(-1),
            baselines_N=baselines_N,
            baseline_satisfied_N=passing_N.bool(),
            satisfied_N=satisfied_N.bool(),
            log_ratios_N=ratios_N,
            num_tokens_N=tokens_N,
        )
        return batch, gather_object([verdicts.counts])

    def _log_ratios(self, output: Mapping[str, Any], mask_BT: Tensor) -> Tensor:
        """Return log(pi / pi_ref) of each response under the weights that drew it."""
        logps_BT = output.get("old_per_token_logps")
        if logps_BT is None:
            kwargs: Any = self.args.gradient_checkpointing_kwargs
            without = disable_gradient_checkpointing(self._policy, kwargs)
            with torch.no_grad(), without:
                logps_BT = self._logps(
                    self.model, output, output["completion_ids"], output["completion_mask"]
                )
        ratios_BT = logps_BT.float() - output["ref_per_token_logps"].float()
        return (ratios_BT * mask_BT).sum(dim=-1)

    def _logps(
        self, model: Any, inputs: Mapping[str, Any], ids_BT: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """Return log-probabilities of responses behind their prompts, token by token."""
        logps_BT, _, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], ids_BT], dim=1),
            torch.cat([inputs["prompt_mask"], mask_BT], dim=1),
            ids_BT.shape[1],
            batch_size=self.args.per_device_train_batch_size,
        )
        return logps_BT

    def _baseline_tensors(self, inputs: Inputs, weights_B: Tensor) -> dict[str, Tensor]:
        """Return baseline responses as tokens, which end as a finished response does."""
        tokenizer: Any = self._tokenizer
        end = tokenizer.eos_token_id
        device = weights_B.device
        rows = [
            [*tokenizer(row["baseline"], add_special_tokens=False)["input_ids"], end]
            if weight > 0
            else [end]
            for row, weight in zip(inputs, weights_B.tolist(), strict=True)
        ]
        ids = [torch.tensor(row, device=device) for row in rows]
        return {
            "baseline_ids": pad(ids, padding_value=tokenizer.pad_token_id),
            "baseline_mask": pad([torch.ones_like(row) for row in ids]),
            "baseline_weights": weights_B,
        }

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return TRL's loss without its KL term, and with the likelihood of chosen baselines."""
        beta, self.beta = self.beta, 0.0
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        if "baseline_ids" in inputs:
            loss = loss + self._baseline_loss(model, inputs)
        return loss

    def _baseline_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return -sum of weight * log pi(a_bar | s), divided as `dr_grpo` divides."""
        weights_B = inputs["baseline_weights"]
        rows = weights_B.nonzero().squeeze(-1)
        # Where another process has one: a pass of weight zero.
        rows = rows if len(rows) else rows.new_zeros(1)
        names = ("prompt_ids", "prompt_mask", "baseline_ids", "baseline_mask")
        chosen = {name: inputs[name][rows] for name in names}
        ids_BT, mask_BT = chosen["baseline_ids"], chosen["baseline_mask"]
        logps_B = (self._logps(model, chosen, ids_BT, mask_BT) * mask_BT).sum(dim=-1)
        accumulated = self.current_gradient_accumulation_steps if self._policy.training else 1
        divisor = len(weights_B) * self._most_tokens * accumulated
        return -(weights_B[rows] * logps_B).sum() / divisor

    def _log_batch(self, metrics: Mapping[str, float]) -> None:
        mode = "train" if self._policy.training else "eval"
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)

    def _end_if_violated(self, has_signal: bool) -> None:
        if not self._policy.training:
            return
        self._violated_batches = 0 if has_signal else self._violated_batches + 1
        if self._violated_batches >= self._max_violated_batches:
            raise TrainingFailed(
                f"every sample of {self._violated_batches} batches in a row violates its judges, "
                f"limit {self._max_violated_batches}; nothing is learnt from them. Look at "
                "cgpo/<task>/passed/<judge> for the judge that passes nothing, loosen it, draw "
                "more samples of a prompt, or start from a policy that satisfies it sometimes"
            )


def _loss_mask(output: Mapping[str, Any]) -> Tensor:
    mask_BT = output["completion_mask"]
    return mask_BT * output["tool_mask"] if "tool_mask" in output else mask_BT


def _order(rows: Dataset, tasks: Sequence[Task], settings: GRPOConfig) -> list[int]:
    assert settings.generation_batch_size is not None
    assert settings.num_generations is not None
    prompts = settings.generation_batch_size // settings.num_generations
    return stratified_order(list(rows[COLUMN]), tasks, prompts=prompts, seed=settings.seed)
