"""A batch of several tasks gives each its own advantages, and broken numbers end the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from steerward.protocol.errors import TrainingFailed
from steerward.training.align.cgpo.batch import Batch, Weighed, weigh
from steerward.training.align.cgpo.tasks import Task

GROUP = 3


def batch_of(tasks: list[int], *, seed: int = 0) -> Batch:
    numbers = torch.Generator().manual_seed(seed)
    count = len(tasks) * GROUP

    def drawn() -> torch.Tensor:
        return torch.randn(count, generator=numbers)

    return Batch(
        tasks_N=torch.tensor(tasks).repeat_interleave(GROUP),
        rewards_N=drawn(),
        baselines_N=torch.randn(len(tasks), generator=numbers).repeat_interleave(GROUP),
        baseline_satisfied_N=torch.ones(count, dtype=torch.bool),
        satisfied_N=drawn() > 0,
        log_ratios_N=drawn(),
        num_tokens_N=torch.full((count,), 4.0),
    )


def weighed(batch: Batch, *tasks: Task) -> Weighed:
    return weigh(batch, tasks, num_generations=GROUP, max_completion_length=10)


def part(batch: Batch, place: int) -> Batch:
    own = batch.tasks_N == place
    values = {name: getattr(batch, name)[own] for name in Batch.__dataclass_fields__}
    return Batch(**values | {"tasks_N": torch.zeros(int(own.sum()), dtype=torch.long)})


@pytest.mark.parametrize("optimizer", ["crpg", "codpo", "crraft"])
def test_tasks_of_a_batch_are_weighed_as_if_alone(optimizer: str) -> None:
    batch = batch_of([1, 0, 1, 1])
    one = Task("one", "reward", optimizer="crpg", weight=0.5, max_kl=1.0)
    other = Task("other", "reward", optimizer=optimizer, weight=2.0, max_kl=0.5)  # pyright: ignore
    together = weighed(batch, one, other)
    for place, task in enumerate((one, other)):
        own = part(batch, place)
        alone = weighed(own, replace(task, weight=1.0))
        # The loss divides by the samples of the batch, which are more.
        factor = task.weight * len(batch.rewards_N) / len(own.rewards_N)
        found = together.advantages_N[batch.tasks_N == place]
        torch.testing.assert_close(found, factor * alone.advantages_N)
        found = together.baselines_N[batch.tasks_N == place]
        torch.testing.assert_close(found, factor * alone.baselines_N)


def test_samples_beyond_those_of_the_task_get_nothing() -> None:
    found = weighed(batch_of([0, 0]), Task("one", "reward", num_samples=2))
    assert not found.advantages_N.view(-1, GROUP)[:, 2].any()
    assert found.advantages_N.view(-1, GROUP)[:, :2].sum().abs() < 1e-4


def test_signal_is_a_satisfied_sample_or_a_chosen_baseline() -> None:
    batch = batch_of([0, 0])
    violated = replace(batch, satisfied_N=torch.zeros_like(batch.satisfied_N))
    assert weighed(batch, Task("one", "reward")).has_signal
    assert not weighed(violated, Task("one", "reward")).has_signal
    assert weighed(violated, Task("one", "reward", optimizer="crraft")).has_signal


def test_missing_reward_ends_the_run_with_its_task_and_column() -> None:
    batch = batch_of([0, 0])
    batch.rewards_N[2] = torch.nan
    with pytest.raises(TrainingFailed, match=r"task 'one': 17% of 6 rewards .* column 'reward'"):
        weighed(batch, Task("one", "reward"))
    # The third sample of a group is not used by a task that uses two.
    weighed(batch, Task("one", "reward", num_samples=2))


def test_infinite_log_ratio_ends_the_run() -> None:
    batch = batch_of([0])
    batch.log_ratios_N[0] = torch.inf
    with pytest.raises(TrainingFailed, match="log-ratios"):
        weighed(batch, Task("one", "reward"))
