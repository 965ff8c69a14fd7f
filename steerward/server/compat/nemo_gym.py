"""``POST /verify``: a resources server of NeMo Gym, which NeMo-RL and Unsloth's notebooks call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import orjson
from fastapi import Request
from starlette.responses import Response

from steerward.protocol.verification import VerifyAnswer, VerifyRequest, read_sample, worth
from steerward.server.compat.options import read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import score_items, whole_characters

router = compat_router()


@serve_at(router, "/verify", protocols=("nemo-gym",), answer=VerifyAnswer)
async def verify(body: VerifyRequest, request: Request) -> Response:
    """Verify a sample of NeMo Gym.

    The body comes back with `reward`, `reward_components` (gates times rewards, which sum to it
    exactly; with `?direction=` or `?weights=` there is one component, their score) and the raw
    rewards as `objective/NAME`, which Gym averages and logs.
    """
    options = read_options(request)
    item = read_sample(body, whole=partial(whole_characters, request))
    scores = await score_items(request, options, [item], place="response", explain=True)
    (found,) = scores.candidates
    sent = cast("dict[str, Any]", json.loads(await request.body()))
    answer = worth(
        found.value,
        kind=scores.kind,
        rewards=found.rewards,
        contributions=found.contributions,
    )
    return Response(
        _dumps({**sent, **answer}), headers=dict(scores.headers), media_type="application/json"
    )


def _dumps(content: Mapping[str, Any]) -> bytes:
    """Return JSON of a body that is given back, whatever it held."""
    try:
        return orjson.dumps(content)
    except TypeError:
        # Halves of characters and integers of more than 64 bits.
        return json.dumps(content).encode()
