"""CGPO on TRL: the gradient is the paper's, and runs save, resume and end as they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from steerward.protocol.errors import TrainingFailed
from steerward.training.align.cgpo.tasks import Task
from tests.training.align.cgpo.runs import (
    BASELINE,
    GENERATIONS,
    Gradients,
    Reward,
    Rule,
    flat,
    is_even,
    log_likelihoods,
    reward_of,
    rows_of,
    trainer_of,
)

CALIBRATED_AGAINST = -2.5


class Run:
    """One step of a trainer, and what a direct formula needs of it."""

    def __init__(self, folder: Path, tasks: list[Task], names: list[str], **more: Any) -> None:
        reward, kept = Reward(), Gradients()
        rows = rows_of(names, passes=more.pop("passes", True))
        self.trainer = trainer_of(
            folder, tasks, rows=rows, rewards=[reward], callbacks=[kept], **more
        )
        self.trainer.train()
        assert kept.gradient is not None
        self.gradient = kept.gradient
        self.policy = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
        self.policy.load_state_dict(kept.before)
        self.tokenizer: Any = self.trainer.processing_class
        self.reference = AutoModelForCausalLM.from_pretrained(folder / "policy").eval()
        self.prompts = [prompt for prompt, _, _ in reward.asked][::GENERATIONS]
        pairs = [(prompt, ids) for prompt, ids, _ in reward.asked]
        self.likelihoods = log_likelihoods(self.policy, self.tokenizer, pairs).view(-1, GENERATIONS)
        with torch.no_grad():
            reference = log_likelihoods(self.reference, self.tokenizer, pairs)
        self.reference_likelihoods = reference.view(-1, GENERATIONS)
        texts = [text for _, _, text in reward.asked]
        self.rewards = torch.tensor([reward_of(text) for text in texts]).view(-1, GENERATIONS)
        self.passes = torch.tensor([is_even(text) for text in texts]).view(-1, GENERATIONS)
        self.lengths = torch.tensor([len(ids) for _, ids, _ in reward.asked])
        self.lengths = self.lengths.view(-1, GENERATIONS)

    @property
    def log_ratios(self) -> Tensor:
        return self.likelihoods.detach() - self.reference_likelihoods

    @property
    def calibrated(self) -> Tensor:
        return torch.sigmoid(self.rewards - CALIBRATED_AGAINST)

    def gradient_of(self, loss: Tensor) -> Tensor:
        parameters = list(self.policy.parameters())
        self.policy.zero_grad()
        return flat(torch.autograd.grad(loss, parameters))


def crpg(run: Run, rows: slice, max_kl: float, samples: int = GENERATIONS) -> Tensor:
    """Return minus what section 4.3 ascends, of some prompts."""
    own = (rows, slice(samples))
    factor = torch.clamp(1 - run.log_ratios[own] / max_kl, min=0)
    weighed = factor * run.calibrated[own] * run.passes[own]
    return -(run.likelihoods[own] * (weighed - weighed.mean())).mean()


def codpo(run: Run, rows: slice, beta: float, likelihood_weight: float) -> Tensor:
    """Return the mean over prompts of the loss of section 4.4, sign set right."""
    losses = [torch.tensor(0.0)]
    count = 0
    for i in range(*rows.indices(len(run.rewards))):
        count += 1
        passing = [k for k in range(GENERATIONS) if run.passes[i, k]]
        failing = [k for k in range(GENERATIONS) if not run.passes[i, k]]
        if not passing:
            continue
        best = max(passing, key=lambda k: float(run.rewards[i, k]))
        worst = min(failing or passing, key=lambda k: float(run.rewards[i, k]))
        ratios = run.likelihoods[i] - run.reference_likelihoods[i]
        losses.append(-logsigmoid(beta * (ratios[best] - ratios[worst])))
        losses.append(-likelihood_weight / run.lengths[i, best] * run.likelihoods[i, best])
    return torch.stack(losses).sum() / count


def crraft(run: Run, rows: slice, max_kl: float, *, baseline_passes: bool) -> Tensor:
    """Return the mean over prompts of minus what section 4.5 ascends."""
    end = run.tokenizer.eos_token_id
    baseline = [*run.tokenizer(BASELINE, add_special_tokens=False)["input_ids"], end]
    losses = [torch.tensor(0.0)]
    count = 0
    for i in range(*rows.indices(len(run.rewards))):
        count += 1
        kept = [
            k
            for k in range(GENERATIONS)
            if run.passes[i, k] and float(run.log_ratios[i, k]) <= max_kl
        ]
        if kept:
            best = max(kept, key=lambda k: float(run.rewards[i, k]))
            losses.append(-run.calibrated[i, best] * run.likelihoods[i, best])
        elif baseline_passes:
            pair = (run.prompts[i], baseline)
            losses.append(-0.5 * log_likelihoods(run.policy, run.tokenizer, [pair])[0])
    return torch.stack(losses).sum() / count


EVERY = slice(None)
ONE_TASK = ["one"] * 4


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert expected.norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-5 * float(expected.abs().max()))


DIRECT: dict[str, tuple[Task, Callable[[Run], Tensor]]] = {
    "crpg": (
        Task("one", "letters", Rule(is_even), max_kl=2.0),
        lambda run: crpg(run, EVERY, 2.0),
    ),
    "crpg of fewer samples": (
        Task("one", "letters", Rule(is_even), max_kl=2.0, num_samples=3),
        lambda run: crpg(run, EVERY, 2.0, 3),
    ),
    "codpo": (
        Task("one", "letters", Rule(is_even), "codpo", beta=0.3, likelihood_weight=0.7),
        lambda run: codpo(run, EVERY, 0.3, 0.7),
    ),
    "crraft": (
        Task("one", "letters", Rule(is_even), "crraft", max_kl=1.0),
        lambda run: crraft(run, EVERY, 1.0, baseline_passes=True),
    ),
}


@pytest.mark.parametrize("name", DIRECT)
def test_gradient_equals_direct_autograd(name: str, tmp_path: Path) -> None:
    task, direct = DIRECT[name]
    run = Run(tmp_path, [task], ONE_TASK)
    assert 0 < run.passes.float().mean() < 1
    assert run.log_ratios.abs().max() > 0.1
    assert_same(run.gradient, run.gradient_of(direct(run)))


def test_baseline_takes_the_place_of_samples_that_are_all_dropped(tmp_path: Path) -> None:
    task = Task("one", "letters", Rule(lambda _: False), "crraft")
    run = Run(tmp_path, [task], ONE_TASK)
    run.passes = torch.zeros_like(run.passes)
    expected = run.gradient_of(crraft(run, EVERY, 20.0, baseline_passes=True))
    assert_same(run.gradient, expected)
    entry = run.trainer.state.log_history[0]
    assert entry["cgpo/one/baselines_chosen"] == 1.0
    assert entry["cgpo/one/passed/rule"] == 0.0


@pytest.mark.parametrize("optimizer", ["crpg", "codpo", "crraft"])
def test_nothing_is_learnt_where_everything_is_violated(optimizer: Any, tmp_path: Path) -> None:
    task = Task("one", "letters", Rule(lambda _: False), optimizer)
    run = Run(tmp_path, [task], ONE_TASK, passes=False)
    assert run.gradient.abs().max() == 0.0


def test_two_tasks_give_the_weighted_sum_of_their_gradients(tmp_path: Path) -> None:
    """The shares differ, so that a scale that forgets the size of a task would show."""
    tasks = [
        Task("chat", "letters", Rule(is_even), max_kl=2.0, weight=0.5, share=0.75),
        Task("code", "letters", Rule(is_even), "codpo", beta=0.3, weight=3.0, share=0.25),
    ]
    run = Run(tmp_path, tasks, ["code", "chat", "chat", "chat"])
    chat, code = slice(3), slice(3, 4)
    loss = 0.5 * crpg(run, chat, 2.0) + 3.0 * codpo(run, code, 0.3, 1.0)
    assert_same(run.gradient, run.gradient_of(loss))


def test_log_tells_of_each_task_and_judge(tmp_path: Path) -> None:
    tasks = [
        Task("chat", "letters", Rule(is_even), share=0.5),
        Task("code", "letters", Rule(lambda _: None), share=0.5),
    ]
    run = Run(tmp_path, tasks, ["chat", "code", "chat", "code"])
    entry = run.trainer.state.log_history[0]
    passing = run.passes[:2].float()
    assert entry["cgpo/chat/satisfied"] == pytest.approx(float(passing.mean()))
    assert entry["cgpo/chat/passed/rule"] == pytest.approx(float(passing.mean()))
    assert entry["cgpo/chat/judge_failed/rule"] == 0.0
    calibrated = float(run.calibrated[:2].mean())
    assert entry["cgpo/chat/calibrated_reward"] == pytest.approx(calibrated)
    assert entry["cgpo/code/satisfied"] == 1.0
    assert "cgpo/code/passed/rule" not in entry
    assert "kl" not in entry


def test_judges_see_only_samples_that_are_used(tmp_path: Path) -> None:
    rule = Rule(is_even)
    Run(tmp_path, [Task("one", "letters", rule, num_samples=2)], ONE_TASK)
    assert rule.judged == 8


def test_run_whose_batches_are_all_violated_ends_and_says_what_to_do(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        [Task("one", "letters", Rule(lambda _: False))],
        rows=rows_of(ONE_TASK),
        rewards=[Reward()],
        options={"max_violated_batches": 2},
        max_steps=5,
    )
    with pytest.raises(TrainingFailed, match=r"2 batches in a row .* loosen it"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    def weights(resume: str | None, **changes: Any) -> Tensor:
        trainer = trainer_of(
            tmp_path,
            [Task("a", "letters", Rule(is_even), "crraft"), Task("b", "letters")],
            rows=rows_of(["a", "b"] * 4),
            rewards=[Reward()],
            **changes,
        )
        trainer.train(resume_from_checkpoint=resume)
        assert trainer.state.global_step == 3
        model: Any = trainer.model
        return flat([parameter.detach() for parameter in model.parameters()])

    whole = weights(None, max_steps=3, save_strategy="steps", save_steps=2)
    resumed = weights(str(tmp_path / "run" / "checkpoint-2"), max_steps=3)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_evaluation_judges_and_logs_too(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        [Task("one", "letters", Rule(is_even))],
        rows=rows_of(ONE_TASK),
        rewards=[Reward()],
        options={"eval_dataset": rows_of(["one"] * 2)},
        per_device_eval_batch_size=8,
    )
    assert "eval_cgpo/one/satisfied" in trainer.evaluate()
