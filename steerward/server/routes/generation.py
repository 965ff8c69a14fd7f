"""``POST /v1/chat/completions`` and ``POST /v1/completions``: steered generation."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from steerward.policy.steering import Part
from steerward.protocol.chat import ChatCompletion, ChatCompletionRequest
from steerward.protocol.completions import Completion, CompletionRequest
from steerward.server.auth import KeyedRoute
from steerward.server.compat.nim_chat import ScoredChat, reward_completion
from steerward.server.disconnect import gone, unless_disconnected
from steerward.server.documentation import error_answers
from steerward.server.generation import (
    AnyRequest,
    choice_reward,
    steering_request,
    steering_used,
    usage,
)
from steerward.server.observation import ObservedGeneration
from steerward.server.responses import json_response
from steerward.server.shapes import AnswerShape, ChatShape, CompletionShape
from steerward.server.state import state_of
from steerward.server.streaming import EventStream, EventWriter

router = APIRouter(tags=["generation"], route_class=KeyedRoute)

# Of one event; all of them have data and nothing else.
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}},
    **error_answers(401, 404, 413, 422, 429, 500, 503, 504),
}


@router.post("/v1/chat/completions", response_model=ChatCompletion | ScoredChat, responses=_ANSWERS)
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Draw completions of a conversation, steered by a direction, each with its rewards.

    The request and the answer are OpenAI's, with further fields: `direction` or `angle` says what
    is wanted, `steering` how it acts; the answer has `reward` in each choice and `steering`, what
    was done. OpenAI's client sends the further fields as `extra_body`.

    With `stream` the answer is server-sent events, each a `ChatCompletionChunk`: first the role
    of each choice, then pieces of all choices as they come, told apart by `index`; the last of
    each choice has its `finish_reason` and `reward`. `steering` is in the first chunk, and again,
    with what is known only then, where the last choice ends. What fails before there is anything
    to send is an error answer; what fails later is an event with `error`, and no `[DONE]`.

    Where `model` is a reward model the conversation ends with the assistant's turn, which is
    scored: the text of the answer is `reward:NUMBER`, and `logprobs` has each objective.
    """
    if body.model in state_of(request).engines and body.is_answered:
        return await reward_completion(body, request)
    shape = ChatShape(has_logprobs=body.num_top_logprobs is not None)
    return await _answer(body, shape, request)


@router.post("/v1/completions", response_model=Completion, responses=_ANSWERS)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Draw completions of a text that no chat template touches.

    As `POST /v1/chat/completions`, in the shapes of OpenAI's older route. A direction cannot be
    told to the policy here, since that takes a system turn; it can choose among samples.
    """
    shape = CompletionShape(has_logprobs=body.num_top_logprobs is not None)
    return await _answer(body, shape, request)


async def _answer(body: AnyRequest, shape: AnswerShape, request: Request) -> Response:
    began_at = time.perf_counter()
    state = state_of(request)
    steered, variant = state.policy(body.model, reward_model=body.reward_model)
    asked = steering_request(
        body, config=state.config, rule=steered.policy.rule, variant=variant, began_at=began_at
    )

    async def draw() -> Response:
        await state.pause.enter(asked.deadline - time.perf_counter())
        try:
            generation = await steered.begin(asked)
        except BaseException:
            state.pause.leave()
            raise
        observed = ObservedGeneration(
            generation,
            model=variant or steered.policy.name,
            num_choices=asked.n,
            metrics=state.metrics,
            began_at=began_at,
            on_close=state.pause.leave,
        )
        try:
            if body.stream:
                writer = EventWriter(shape, has_usage=body.has_usage_chunk, metrics=state.metrics)
                return await _stream(observed, writer, deadline=asked.deadline)
            return await _whole_answer(observed, shape)
        except BaseException:
            await observed.aclose()
            raise

    return await unless_disconnected(draw(), request) or gone()


async def _stream(
    observed: ObservedGeneration, writer: EventWriter, *, deadline: float
) -> Response:
    """Return the answer to a request that streams, when there is something to send."""
    await observed.wait_for_first()
    head = _head(observed, writer.shape.id_prefix, writer.shape.chunk_object)
    events = writer.events(observed, head)
    return EventStream(events, observed=observed, deadline=deadline, headers=_headers(observed))


async def _whole_answer(observed: ObservedGeneration, shape: AnswerShape) -> Response:
    """Return the answer to a request that does not stream."""
    whole = await _whole(observed, shape)
    await observed.aclose()
    headers = {**_headers(observed), "x-total-ms": f"{observed.elapsed_s * 1e3:.2f}"}
    return json_response(whole, headers=headers)


async def _whole(observed: ObservedGeneration, shape: AnswerShape) -> dict[str, Any]:
    parts: list[list[Part]] = [[] for _ in range(observed.num_choices)]
    async for part in observed:
        parts[part.index].append(part)
    generation = observed.generation
    return {
        **_head(observed, shape.id_prefix, shape.whole_object),
        "choices": [_choice(shape, found) for found in parts],
        "usage": usage(generation),
        "steering": steering_used(generation.report, generation.ranking),
    }


def _choice(shape: AnswerShape, parts: list[Part]) -> dict[str, Any]:
    last = parts[-1]
    assert last.finish_reason is not None
    return shape.whole(
        last.index,
        "".join(part.text for part in parts),
        [drawn for part in parts for drawn in part.logprobs],
        last.finish_reason,
        choice_reward(last.reward),
    )


def _head(observed: ObservedGeneration, id_prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{id_prefix}{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": observed.model,
        "system_fingerprint": observed.generation.system_fingerprint,
    }


def _headers(observed: ObservedGeneration) -> dict[str, str]:
    headers = {"x-weight-version": observed.generation.weight_version}
    if observed.first_part_s is not None:
        headers["x-first-token-ms"] = f"{observed.first_part_s * 1e3:.2f}"
    return headers
