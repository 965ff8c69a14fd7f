"""`/verify` of a NeMo Gym resources server, answered by a reward model.

NeMo-RL refuses a reward that is not the sum of its components, so the reward is their sum as sent.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Unpack, cast

from steerward.clients._conversation import PlainPrompt, plain_answer, plain_prompt
from steerward.clients._rewards import Settings, raising_scorer
from steerward.clients._samples import Sample, Scored, checked
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest

Verify = Callable[[Mapping[str, Any]], Coroutine[Any, Any, dict[str, Any]]]

_MESSAGE = "message"


def verifier(url: str = DEFAULT_BASE_URL, **settings: Unpack[Settings]) -> Verify:
    """Return `verify(body)`, which answers the body of `POST /verify` as a mapping.

    The answer has everything of the body, `reward`, `reward_components` (what each objective
    contributes to the score; by weights or a direction, the score alone), and each raw reward as
    a number of its own, `objective/<name>`, which is what NeMo Gym logs.

    Args:
        url: Where the server is.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        InvalidRequest: If `on_error` is not "raise".
    """
    scoring = raising_scorer("NeMo Gym", url, **settings)

    async def verify(body: Mapping[str, Any]) -> dict[str, Any]:
        sample = Sample(_prompt(body), _answer(body))
        (found,) = checked(await scoring.score_async([sample], explain=True))
        return {**body, **_rewards(found)}

    return verify


def _rewards(found: Scored) -> dict[str, Any]:
    components = dict(found.contributions or {"score": found.score})
    return {
        "reward": sum(components.values()),
        "reward_components": components,
        **{f"objective/{name}": reward for name, reward in found.rewards.items()},
    }


def _prompt(body: Mapping[str, Any]) -> PlainPrompt:
    asked = _part(body, "responses_create_params").get("input")
    if not isinstance(asked, list):
        return plain_prompt(asked, param="responses_create_params.input")
    turns = [_turn(item) for item in cast("list[Any]", asked)]
    return plain_prompt(turns, param="responses_create_params.input")


def _turn(item: Any) -> Any:
    # The Responses API calls the system's turn the developer's.
    return {**item, "role": "system"} if item.get("role") == "developer" else item


def _answer(body: Mapping[str, Any]) -> str:
    output: list[Any] = list(_part(body, "response").get("output") or ())
    kinds = [item.get("type", _MESSAGE) for item in output]
    if any(kind not in (_MESSAGE, "reasoning") for kind in kinds):
        raise InvalidRequest(
            "the response calls tools, which no reward model here can read; score answers of one "
            "message",
            param="response.output",
        )
    messages = [item for item, kind in zip(output, kinds, strict=True) if kind == _MESSAGE]
    return plain_answer(messages, param="response.output")


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = body.get(name)
    if not isinstance(part, Mapping):
        raise InvalidRequest(f"the body has no object {name}", param=name)
    return cast("Mapping[str, Any]", part)
