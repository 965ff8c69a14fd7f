"""``POST /get_reward``: OpenRLHF's remote reward model, of any of its versions.

Newer versions post each sample by itself, older ones whole batches; with several URLs some post
empty lists, and lose all rewards if that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from fastapi import Request
from pydantic import model_validator
from starlette.responses import Response

from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScore, CompatScores
from steerward.server.compat.texts import Texts, as_list, score_texts
from steerward.server.responses import json_response

router = compat_router()


class RewardRequest(RequestModel):
    """Body of ``POST /get_reward``."""

    query: Texts
    """Prompt and answer of each sample, joined, with the policy's template and tokens."""
    prompts: Texts | None = None
    """Prompt of each sample, as its query begins; tells where the answer begins."""
    labels: Any = None
    """Of the data set; not read."""

    @model_validator(mode="after")
    def _each_query_has_a_prompt(self) -> Self:
        if self.prompts is not None:
            num_prompts, num_queries = len(as_list(self.prompts)), len(as_list(self.query))
            if num_prompts != num_queries:
                raise ValueError(
                    f"there are {num_prompts} prompts for {num_queries} queries; send one for "
                    "each, in the same order, or leave prompts out"
                )
        return self


class RewardAnswer(AnswerModel):
    """Answer of ``POST /get_reward``."""

    rewards: list[float]
    """Of each query: the number that the URL asks for, which the policy is trained with."""
    scores: list[float]
    """The same again, which samples are filtered by."""
    extra_logs: dict[str, list[float]]
    """One number for each query and name: `objective/NAME` is a raw reward, `gate/NAME` a gate,
    where the model has one. The names are the same in every answer."""


@serve_at(router, "/get_reward", protocols=("openrlhf",), answer=RewardAnswer)
async def get_reward(body: RewardRequest, request: Request) -> Response:
    """Score samples of OpenRLHF: set `--reward.remote_url` to this route.

    It calls from one URL setting, which it splits at commas, so options go into the URL:
    `http://host:8000/get_reward?direction=helpfulness:0.97;verbosity:-0.26`, or a profile of the
    settings: `http://host:8000/p/concise/get_reward`. The objectives are in its logs.
    """
    prompts = None if body.prompts is None else as_list(body.prompts)
    scores = await score_texts(
        request, as_list(body.query), place="query", prompts=prompts, explain=True
    )
    answer = {"rewards": scores.values, "scores": scores.values, "extra_logs": _logs(scores)}
    return json_response(answer, headers=scores.headers)


def _logs(scores: CompatScores) -> dict[str, list[float]]:
    """Return each objective as a column: numbers that are no list of one would end training."""
    logs = _columns(scores, "objective", lambda candidate: candidate.rewards)
    if scores.has_gate:
        logs |= _columns(scores, "gate", lambda candidate: candidate.gates)
    return logs


def _columns(
    scores: CompatScores, prefix: str, numbers: Callable[[CompatScore], Mapping[str, float]]
) -> dict[str, list[float]]:
    rows = [numbers(candidate) for candidate in scores.candidates]
    return {f"{prefix}/{name}": [row[name] for row in rows] for name in scores.objectives}
