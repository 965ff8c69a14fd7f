"""``POST /compat/slime``: slime's `remote_rm`, whose whole answer is the reward.

slime, and its fork miles, post each sample by itself, prompt and response apart.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.wire import RequestModel
from steerward.server.compat.options import read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items
from steerward.server.compat.turns import Prompt, answered
from steerward.server.responses import json_response

router = compat_router()

_KEYS = "keys"


class SampleRequest(RequestModel):
    """Body of ``POST /compat/slime``."""

    prompt: Prompt
    """Text, perhaps in the policy's chat template, or messages."""
    response: str
    """What the policy wrote."""
    label: Any = None
    """Of the data set; not read."""


@serve_at(router, "/slime", protocols=("slime",), answer=float | dict[str, float], is_bare=False)
async def reward(body: SampleRequest, request: Request) -> Response:
    """Score a sample of slime: set `--rm-type remote_rm` and `--rm-url` to this.

    The answer is the bare number. With `?keys=1` in the URL it is an object of numbers, of which
    `--reward-key score` takes the same number; each objective is in it by its name, and so in the
    dumps of the samples. The keys are the same in every answer; an objective that is called
    `score` gives way.
    """
    options = read_options(request, also=(_KEYS,))
    has_keys = _has_keys(request)
    item = answered(request, options, body.prompt, body.response)
    scores = await score_items(request, options, [item], place="response")
    answer = _by_key(scores) if has_keys else scores.values[0]
    return json_response(answer, headers=scores.headers)


def _has_keys(request: Request) -> bool:
    given = request.query_params.get(_KEYS, "0")
    if given not in ("0", "1"):
        raise InvalidRequest(
            "keys is neither 0, for a bare number, nor 1, for an object", param=_KEYS
        )
    return given == "1"


def _by_key(scores: CompatScores) -> dict[str, float]:
    (candidate,) = scores.candidates
    others = {name: value for name, value in candidate.rewards.items() if name != "score"}
    return {"score": candidate.value, **others}
