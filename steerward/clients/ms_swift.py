"""Reward functions for ms-swift's GRPO, for a file that `--external_plugins` names.

    from swift.rewards import orms
    from steerward.clients.ms_swift import register
    register(orms, "http://127.0.0.1:8000", objectives=["helpfulness"])

Then `--reward_funcs steerward_score steerward_helpfulness`.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Unpack

from steerward.clients._rewards import Settings
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.clients.trl import RewardFunction, reward_funcs


def register(
    orms: MutableMapping[str, Any],
    url: str = DEFAULT_BASE_URL,
    *,
    objectives: Sequence[str] | None = None,
    score: bool = True,
    **settings: Unpack[Settings],
) -> list[str]:
    """Put one asynchronous reward class a column into swift's registry; return their names.

    They share one scoring call a batch, as TRL's do.

    Args:
        orms: `swift.rewards.orms`.
        url: Where the server is.
        objectives: Columns beside the score; None asks the server for all of them, at once.
        score: Whether the score is a column.
        settings: As for `steerward.clients.trl.reward_funcs`.

    Raises:
        SteerwardError: As `reward_funcs` does.
    """
    functions = reward_funcs(
        url, objectives=objectives, score=score, asynchronous=True, log_gates=False, **settings
    )
    classes = {function.__name__: _reward_class(function) for function in functions}
    orms.update(classes)
    return list(classes)


def _reward_class(function: RewardFunction) -> type:
    class Reward:
        """Returns a column; swift makes one object of it, and logs by the name of the class."""

        def __init__(self, args: Any = None, **more: Any) -> None:
            del args, more

        async def __call__(
            self, completions: Sequence[str], *, messages: Sequence[Sequence[Any]], **more: Any
        ) -> list[float | None]:
            # The last message is the completion itself.
            prompts = [turns[:-1] for turns in messages]
            return await function(prompts=prompts, completions=completions, **more)

    Reward.__name__ = Reward.__qualname__ = function.__name__
    return Reward
