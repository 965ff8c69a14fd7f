"""Which models of this server jobs can use, and what a job of them may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from steerward.engine.served import ServedModel
from steerward.jobs.align.checks import check_judges, check_objectives
from steerward.jobs.process import needed_packages_missing
from steerward.jobs.rsf.directions import directions_for
from steerward.jobs.rsf.filters import Filters
from steerward.jobs.store import JobStore
from steerward.policy.generation import Policy
from steerward.policy.trainable import TrainablePolicy
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.errors import InvalidRequest, NotFound, UnknownObjective, brief
from steerward.protocol.fine_tuning import JobMethod, JobRequest, MethodSettings
from steerward.protocol.rsf import RsfSettings
from steerward.server.job_ports import ServedRewards


class JobModels:
    """The policies and reward models of a server, as jobs name them.

    Args:
        policies: By name, those that jobs can fine-tune among them.
        engines: Reward models by name.
        store: Knows what earlier jobs made.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        engines: Mapping[str, ServedModel],
        store: JobStore,
    ) -> None:
        self._all_policies = policies
        self.policies: Mapping[str, TrainablePolicy] = {
            name: policy for name, policy in policies.items() if isinstance(policy, TrainablePolicy)
        }
        self._engines = engines
        self._store = store

    def trainable(self) -> Sequence[str]:
        """Return the models whose jobs can be run now."""
        return [
            name
            for base, policy in self.policies.items()
            if policy.is_ready
            for name in (base, *policy.variants)
        ]

    def policy(self, model: str) -> tuple[TrainablePolicy, str | None]:
        """Return the policy of a name, and the variant that is meant, if it is one.

        Raises:
            NotFound: If there is none.
            InvalidRequest: If it cannot be fine-tuned here.
        """
        for name, policy in self.policies.items():
            if model == name:
                return policy, None
            if model in policy.variants:
                return policy, model
        if model in self._all_policies:
            raise InvalidRequest(
                f"{model!r} lives on another server, and its weights are not here; fine-tune it "
                "there",
                param="model",
            )
        known = ", ".join(name for base, p in self.policies.items() for name in (base, *p.variants))
        raise NotFound(
            f"there is no policy {brief(model)!r} here to fine-tune; known: {known or 'none'}",
            param="model",
        )

    def engine(self, name: str | None, *, method: JobMethod) -> ServedModel:
        """Return the reward model of a name; None: the first.

        Args:
            name: As settings give it.
            method: Whose settings they are.

        Raises:
            NotFound: If there is none.
        """
        known = ", ".join(self._engines)
        if not self._engines or (name is not None and name not in self._engines):
            raise NotFound(
                f"there is no reward model {brief(name or '')!r} here; known: {known or 'none'}",
                param=f"method.{method}.reward_model",
            )
        return next(iter(self._engines.values())) if name is None else self._engines[name]

    def check(self, request: JobRequest, *, num_margins: int = 0) -> None:
        """Refuse a job that could not run.

        Args:
            request: As it was sent.
            num_margins: Objectives whose rewards its rows bring themselves.

        Raises:
            SteerwardError: `NotFound`, `InvalidRequest`, `UnknownObjective`, `InvalidDirection`.
        """
        method, settings = request.method.type, request.method.settings
        policy, _ = self.policy(request.model)
        if missing := needed_packages_missing():
            raise InvalidRequest(
                f"fine-tuning needs {', '.join(missing)} beside the server; run: pip install "
                "'steerward[jobs]'",
                param="method",
            )
        if method == "rsf":
            rule_of(policy)
        self.start_of(request.model, kind=trained_kind(settings))
        limit = policy.card().max_input_tokens
        if limit is not None and settings.max_tokens >= limit:
            raise InvalidRequest(
                f"max_tokens is {settings.max_tokens:,}, and the policy reaches {limit:,} with "
                "the prompt; ask for fewer",
                param=f"method.{method}.max_tokens",
            )
        if isinstance(settings, RsfSettings):
            Filters(settings)
            self._check_rewards(policy, settings)
            return
        rewards = ServedRewards(self.engine(settings.reward_model, method=method))
        check_objectives(
            method,
            settings,
            known=rewards.objectives,
            has_score=rewards.has_score,
            model=rewards.name,
            num_margins=num_margins,
        )
        check_judges(method, settings)

    def _check_rewards(self, policy: TrainablePolicy, settings: RsfSettings) -> None:
        rule = rule_of(policy)
        rewards = ServedRewards(self.engine(settings.reward_model, method="rsf"))
        needed = [rule.reward_names.get(name, name) for name in rule.objectives]
        for name in needed:
            if name not in rewards.objectives:
                raise UnknownObjective(
                    f"the policy reads {name!r}, and {rewards.name} has no such reward; known: "
                    f"{', '.join(rewards.objectives)}; name another reward_model",
                    param="method.rsf.reward_model",
                )
        if settings.reward_scale == "reference" and rewards.reference is None:
            raise InvalidRequest(
                f"{rewards.name} does not know the mean and spread of its rewards; give "
                "reward_scale: prompt, or raw",
                param="method.rsf.reward_scale",
            )
        num = len(directions_for(settings, rule, iteration=1, seed=0))
        if settings.directions_per_prompt > num:
            raise InvalidRequest(
                f"directions_per_prompt is {settings.directions_per_prompt}, and there are {num} "
                "directions; lower it, or give more directions",
                param="method.rsf.directions_per_prompt",
            )

    def start_of(self, model: str, *, kind: Literal["full", "lora"]) -> Path:
        """Return the checkpoint that a job of a model begins with.

        Args:
            model: Its name.
            kind: What the job trains.

        Raises:
            NotFound: If there is no such model.
            InvalidRequest: If a job cannot begin with it.
        """
        policy, variant = self.policy(model)
        if variant is None:
            return policy.folder
        try:
            made = self._store.get_fine_tuned(variant)
        except NotFound:
            made = None
        if made is None or made.kind == "lora" or kind == "lora":
            raise InvalidRequest(
                f"{model!r} is an adapter, or was not made by a job here, or is to get an adapter "
                "of its own: begin with the policy itself",
                param="model",
            )
        return Path(made.folder)


def trained_kind(settings: MethodSettings) -> Literal["full", "lora"]:
    """Return whether a job trains all weights or an adapter."""
    trained = settings.training if isinstance(settings, RsfSettings) else settings
    return trained.method


def rule_of(policy: Policy) -> ConditioningRule:
    """Return how a policy reads a direction.

    Raises:
        InvalidRequest: If it reads none, and so cannot be fine-tuned on directions.
    """
    if policy.rule is None:
        raise InvalidRequest(
            f"{policy.name!r} reads no directions, which method rsf needs; serve it with "
            "--conditioning, or take another method",
            param="model",
        )
    return policy.rule
