"""A reward function for OpenRLHF, for a file that `--reward.remote_url FILE.py` names.

Against the URL of a server, which OpenRLHF can call by itself, it adds a key, waits out restarts,
and takes the template by name. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from steerward.clients._rewards import Settings, raising_scorer
from steerward.clients._samples import Scored, checked, sample_of
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.transcripts import TemplateName, read_conversation

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def reward_function(
    url: str = DEFAULT_BASE_URL,
    *,
    template: TemplateName | None = None,
    **settings: Unpack[Settings],
) -> RewardFunction:
    """Return `reward_func(queries, prompts, labels)`.

    It returns `rewards` and `scores`, the score of each, and `extra_logs`: each objective as
    `objective/<name>`. OpenRLHF clips rewards to `--reward.clip_range`, -10 to 10 by default.

    Args:
        url: Where the server is.
        template: Which the policy's tokenizer applies to prompts, with
            `--data.apply_chat_template`; None: the one that a prompt begins with; "none" for
            plain text.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        InvalidRequest: If `on_error` is not "raise": OpenRLHF takes no None.
    """
    scoring = raising_scorer("OpenRLHF", url, **settings)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]
    ) -> dict[str, Any]:
        del labels
        samples = [
            sample_of(
                read_conversation(query, place=f"queries[{i}]", template=template, prompt=prompt)
            )
            for i, (query, prompt) in enumerate(zip(queries, prompts, strict=True))
        ]
        return _answer(checked(scoring.score(samples)))

    return reward_func


def _answer(scored: Sequence[Scored]) -> dict[str, Any]:
    scores = [found.score for found in scored]
    objectives = scored[0].rewards if scored else ()
    return {
        "rewards": scores,
        "scores": list(scores),
        "extra_logs": {
            f"objective/{name}": [found.rewards[name] for found in scored] for name in objectives
        },
    }
