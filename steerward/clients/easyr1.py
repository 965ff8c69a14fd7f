"""A batch reward function for EasyR1, for a file that `worker.reward.reward_function` names.

EasyR1 does not tell a reward function the prompt: name the prompt's column as `data.answer_key`, so
that `ground_truth` is the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from steerward.clients._conversation import plain_prompt
from steerward.clients._rewards import Settings, raising_scorer
from steerward.clients._samples import Sample, checked
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest

REWARD_NAME = "steerward"
REWARD_TYPE = "batch"


def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]],
    url: str = DEFAULT_BASE_URL,
    **settings: Unpack[Settings],
) -> list[dict[str, float]]:
    """Return the score of each response under `overall`, and each objective under its name.

    Args:
        reward_inputs: Each with `response`, and with the prompt as `ground_truth`.
        url: Where the server is.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`;
            from `worker.reward.reward_function_kwargs`.

    Raises:
        InvalidRequest: If there is no prompt, or `on_error` is not "raise".
        SteerwardError: What the server or the connection failed with.
    """
    samples = [_sample(found, place=i) for i, found in enumerate(reward_inputs)]
    scored = checked(raising_scorer("EasyR1", url, **settings).score(samples))
    return [{**found.rewards, "overall": found.score} for found in scored]


def _sample(reward_input: Mapping[str, Any], *, place: int) -> Sample:
    prompt = reward_input.get("ground_truth")
    if prompt is None or prompt == "":
        raise InvalidRequest(
            f"reward_inputs[{place}] has no ground_truth, where the prompt belongs; set "
            "data.answer_key to the column of the prompt",
            param=f"reward_inputs[{place}].ground_truth",
        )
    return Sample(
        plain_prompt(prompt, param=f"reward_inputs[{place}].ground_truth"),
        reward_input["response"],
    )
