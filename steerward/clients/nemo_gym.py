"""`/verify` of a NeMo Gym resources server, answered by a reward model.

A sample is read, refused and answered as by the server's own `POST /verify`. NeMo-RL refuses a
reward that is not the sum of its components, so the reward is their sum as sent.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Unpack

from pydantic import ValidationError

from steerward.clients._rewards import Settings, raising_scorer
from steerward.clients._samples import checked, sample_of
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.conversations import without_halves
from steerward.protocol.items import ScoreItem
from steerward.protocol.validation import invalid_request
from steerward.protocol.verification import VerifyRequest, read_sample, worth

Verify = Callable[[Mapping[str, Any]], Coroutine[Any, Any, dict[str, Any]]]


def verifier(url: str = DEFAULT_BASE_URL, **settings: Unpack[Settings]) -> Verify:
    """Return `verify(body)`, which answers the body of `POST /verify` as a mapping.

    The answer has everything of the body, `reward`, `reward_components` (what each objective
    contributes to the score; by weights or a direction, their score alone), and each raw reward as
    a number of its own, `objective/<name>`, which is what NeMo Gym logs.

    Args:
        url: Where the server is.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        InvalidRequest: If `on_error` is not "raise".
    """
    scoring = raising_scorer("NeMo Gym", url, **settings)

    async def verify(body: Mapping[str, Any]) -> dict[str, Any]:
        sample = sample_of(_item(body))
        (found,) = checked(await scoring.score_async([sample], explain=True))
        answer = worth(
            found.score,
            kind=scoring.score_kind,
            rewards=found.rewards,
            contributions=found.contributions,
        )
        return {**body, **answer}

    return verify


def _item(body: Mapping[str, Any]) -> ScoreItem:
    try:
        sample = VerifyRequest.model_validate(dict(body))
    except ValidationError as error:
        raise invalid_request(error.errors()) from None
    return read_sample(sample, whole=lambda texts: without_halves(texts)[0])
