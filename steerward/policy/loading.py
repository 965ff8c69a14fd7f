"""From settings to policies: each under its name, here or on another machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from steerward.config import PolicyConfig
from steerward.models.source import checkpoint_name
from steerward.policy.generation import Policy
from steerward.policy.local.checkpoint import load_policy, read_rule
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from steerward.protocol.errors import CheckpointRefused

logger = logging.getLogger(__name__)


def load_policies(config: PolicyConfig, *, taken: Sequence[str] = ()) -> dict[str, Policy]:
    """Return the policies of a server by name, not started yet.

    Args:
        config: Which, and how.
        taken: Names that reward models have already.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If one cannot be loaded, or two models have the same name.
    """
    _check_adapters(config, taken)
    names = config.policy_name or [policy_name(source, config) for source in config.policy]
    policies: dict[str, Policy] = {}
    for name, source in zip(names, config.policy, strict=True):
        if name in policies or name in taken:
            raise CheckpointRefused(
                f"two models are called {name!r}; give the policy its own --policy-name"
            )
        policies[name] = (
            _remote(name, source, config) if _is_url(source) else _local(name, source, config)
        )
    return policies


def _check_adapters(config: PolicyConfig, taken: Sequence[str]) -> None:
    """Refuse adapters that nobody could ask for."""
    for name in config.adapter_folders:
        if name in taken:
            raise CheckpointRefused(f"an adapter and a reward model are both called {name!r}")
    if config.adapter_folders and any(_is_url(source) for source in config.policy):
        raise CheckpointRefused(
            "--adapter is for a policy of this process; a policy on another server brings its own "
            "adapters: give their names as further --policy with --policy-model"
        )


def policy_name(source: str, config: PolicyConfig) -> str:
    """Return the name that a policy is served under unless told otherwise."""
    if not _is_url(source):
        return checkpoint_name(source)
    return config.policy_model or "policy"


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _remote(name: str, source: str, config: PolicyConfig) -> RemotePolicy:
    key = config.policy_api_key
    return RemotePolicy(
        source,
        name=name,
        model=config.policy_model,
        api_key=key.get_secret_value() if key else None,
        rule=read_rule(config.conditioning) if config.conditioning else None,
        max_running=config.max_running_completions,
        max_waiting=config.max_waiting_completions,
    )


def _local(name: str, source: str, config: PolicyConfig) -> LocalPolicy:
    began_at = time.perf_counter()
    checkpoint = load_policy(
        source,
        device=config.policy_device,
        dtype=config.policy_dtype,
        conditioning=config.conditioning,
    )
    policy = LocalPolicy(
        checkpoint,
        name=name,
        max_running=config.max_running_completions,
        max_waiting=config.max_waiting_completions,
        cache_bytes=config.policy_cache_bytes,
    )
    for adapter, folder in config.adapter_folders.items():
        policy.load_adapter(adapter, folder)
    card = policy.card()
    logger.info(
        "loaded %s: %.1f M parameters, %s on %s, up to %d tokens, in %.1f s",
        name,
        (card.num_parameters or 0) / 1e6,
        card.dtype,
        card.device,
        card.max_input_tokens,
        time.perf_counter() - began_at,
    )
    return policy
