"""Tiny CGPO runs, and the gradient of the paper's objectives by direct autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig

from steerward.training.align.cgpo.tasks import Task
from steerward.training.align.cgpo.trainer import CGPOTrainer
from tests.policies import save_policy

MOST_TOKENS = 6
GENERATIONS = 4
PROMPTS = ["Hello, how are you?", "Tell me about rainbows.", "The quick fox", "I am fine"]
BASELINE = "Light splits in drops"


@dataclass(frozen=True, slots=True)
class Found:
    """What a mixture found."""

    satisfied: list[bool]
    verdicts: dict[str, list[int | None]]


class Rule:
    """A mixture of one judge, `rule`, which is a function of the completion."""

    def __init__(self, passes: Callable[[str], bool | None]) -> None:
        self.passes = passes
        self.judged = 0

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> Found:
        assert rows is not None
        assert len(prompts) == len(completions) == len(rows)
        self.judged += len(rows)
        said = [self.passes(text) for text in completions]
        verdicts: list[int | None] = [None if one is None else int(one) for one in said]
        return Found([one is not False for one in said], {"rule": verdicts})


def is_even(completion: str) -> bool:
    return sum(map(ord, completion)) % 2 == 0


class Reward:
    """A reward of the text, always below zero; it keeps what it was asked."""

    __name__ = "letters"

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int], str]] = []

    def __call__(
        self, prompts: list[str], completions: list[str], completion_ids: Any = None, **_: Any
    ) -> list[float]:
        if completion_ids is not None:
            self.asked += list(zip(prompts, completion_ids, completions, strict=True))
        return [reward_of(completion) for completion in completions]


def reward_of(completion: str) -> float:
    return -1.0 - (sum(map(ord, completion)) % 17) / 5


def rows_of(tasks: Sequence[str], *, passes: bool = True, reward: float = -2.5) -> Dataset:
    count = len(tasks)
    return Dataset.from_dict(
        {
            "prompt": [PROMPTS[i % len(PROMPTS)] for i in range(count)],
            "task": list(tasks),
            "baseline": [BASELINE] * count,
            "baseline_reward": [reward] * count,
            "baseline_satisfied": [passes] * count,
        }
    )


class Gradients(TrainerCallback):
    """Keeps the weights before the first step, and its gradient."""

    def __init__(self) -> None:
        self.gradient: Tensor | None = None
        self.before: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        del args, state, control
        if self.gradient is None:
            # Not a copy of the model: TRL's own forward on it would be that of the original.
            self.before = copy.deepcopy(more["model"].state_dict())
            self.gradient = flat([parameter.grad for parameter in more["model"].parameters()])


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors if tensor is not None])


def settings(folder: Path, **changes: Any) -> GRPOConfig:
    given = {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_generations": GENERATIONS,
        "max_completion_length": MOST_TOKENS,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "loss_type": "dr_grpo",
        "save_strategy": "no",
    }
    return GRPOConfig(
        **(given | changes),
        output_dir=str(folder / "run"),
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
        activation_checkpointing=False,
    )


def policy_of(folder: Path, *, shift: float = 0.1) -> tuple[Any, Any]:
    """Return a policy that has moved from the reference in its folder, and its tokenizer."""
    if not (folder / "policy").exists():
        save_policy(folder / "policy", rule=None)
    model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += shift * 0.2 * torch.randn(parameter.shape, generator=numbers)
    return model, AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")


def trainer_of(
    folder: Path,
    tasks: Sequence[Task],
    *,
    rows: Dataset,
    rewards: Sequence[Any],
    callbacks: Sequence[TrainerCallback] = (),
    options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> CGPOTrainer:
    model, tokenizer = policy_of(folder)
    return CGPOTrainer(
        model,
        rewards,
        tasks=tasks,
        args=settings(folder, **changes),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        **(options or {}),
    )


def log_likelihoods(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, list[int]]]) -> Tensor:
    """Return log pi(a | s) of each prompt and response, one forward pass each, with gradients."""
    found: list[Tensor] = []
    for prompt, response in pairs:
        start = tokenizer(prompt)["input_ids"]
        ids = torch.tensor([[*start, *response]])
        logps = torch.log_softmax(model(input_ids=ids).logits[0].float(), dim=-1)
        places = torch.arange(len(start) - 1, ids.shape[1] - 1)
        found.append(logps[places, ids[0, len(start) :]].sum())
    return torch.stack(found)
