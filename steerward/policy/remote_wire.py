"""What is sent to an OpenAI-compatible server, and what its lists and errors mean.

Pure: nothing is sent here. `remote_stream` reads the completions that come back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx

from steerward.policy.generation import Prompt, Sampling
from steerward.protocol.errors import (
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NotReady,
    SteerwardError,
    Unauthorized,
    brief,
    error_from_body,
)

# Of what another server says of an error; some repeat the whole request.
_MOST_TOLD = 1000
_MOST_LISTED = 10
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """Samples that go on from one prompt, which one HTTP request draws."""

    prompt: Prompt
    samples: tuple[int, ...]
    """Their indices; the other server counts them from 0."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What another server says of a model that it serves."""

    name: str
    max_input_tokens: int | None = None
    weight_version: str | None = None
    is_steerward: bool = False
    """Whether that server is one of ours, which scores completions unless told not to."""


def server_address(url: str) -> httpx.URL:
    """Return the address of a server, without the /v1 that many write behind it.

    Raises:
        InvalidRequest: If it is none.
    """
    try:
        address = httpx.URL(url.strip().rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"the policy's URL is none: {error}", param="url") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidRequest(
            "the policy's URL has no scheme or no host; give one such as http://127.0.0.1:9000",
            param="url",
        )
    return address


def key_headers(api_key: str | None) -> dict[bytes, bytes]:
    """Return the headers that carry a key.

    Raises:
        InvalidRequest: If none can.
    """
    if api_key is None:
        return {}
    if not api_key or not api_key.isprintable() or api_key != api_key.strip():
        raise InvalidRequest(
            "the policy's API key is empty, or has characters that no header can carry; give the "
            "key alone, or none",
            param="api_key",
        )
    # As bytes: httpx would refuse what is not ASCII.
    return {b"authorization": f"Bearer {api_key}".encode()}


def group_prompts(prompts: Sequence[Prompt]) -> list[PromptGroup]:
    """Return the distinct prompts in the order in which they come, each with its samples."""
    groups: list[tuple[Prompt, list[int]]] = []
    for index, prompt in enumerate(prompts):
        known = next((samples for other, samples in groups if other == prompt), None)
        if known is None:
            groups.append((prompt, [index]))
        else:
            known.append(index)
    return [PromptGroup(prompt, tuple(samples)) for prompt, samples in groups]


def completions_path(prompt: Prompt) -> str:
    """Return the route that goes on from a prompt of this kind."""
    return "/v1/completions" if prompt.text is not None else "/v1/chat/completions"


def completions_body(
    group: PromptGroup, sampling: Sampling, *, model: str, is_steerward: bool = False
) -> dict[str, Any]:
    """Return the body that draws a group's samples as a stream.

    What is None is left out: the other server has defaults of its own.
    """
    is_chat = group.prompt.text is None
    length = "max_completion_tokens" if is_chat else "max_tokens"
    top = sampling.top_logprobs
    logprobs = {"logprobs": True, "top_logprobs": top} if is_chat else {"logprobs": top}
    fields: dict[str, Any] = {
        "model": model,
        "messages": [dict(turn) for turn in group.prompt.messages] if is_chat else None,
        "prompt": group.prompt.text,
        "n": len(group.samples),
        "stream": True,
        "stream_options": {"include_usage": True},
        length: sampling.max_tokens or sampling.default_max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "seed": _seed(sampling.seed, group.samples[0]),
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        **(logprobs if top is not None else {}),
        # Other servers may refuse a field that they do not know.
        "reward": False if is_steerward else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _seed(seed: int | None, first: int) -> int | None:
    """Return the seed of a group, in 64 bits.

    Servers count samples from 0 in each request: with one seed for all, samples of different
    prompts would draw from the same stream.
    """
    return None if seed is None else (seed + first + 2**63) % 2**64 - 2**63


def read_models(content: bytes, *, wanted: str | None) -> RemoteModel:
    """Return the model to draw from, out of the answer to ``GET /v1/models``.

    Args:
        content: Body of the answer.
        wanted: Its name; None: the only one that is no adapter.

    Raises:
        NotReady: If the body is no list of models, or does not say which one is meant.
    """
    models = [_Entry(entry) for entry in _entries(content)]
    # Servers that hide some of their models still serve them.
    found = [m for m in models if m.name == wanted] or ([_Entry({"id": wanted})] if wanted else [])
    if wanted is None:
        found = [model for model in models if model.is_base]
    if len(found) != 1:
        names = [brief(model.name) for model in found]
        shown = ", ".join(names[:_MOST_LISTED]) + (" ..." if len(names) > _MOST_LISTED else "")
        raise NotReady(
            f"it serves {len(found)} policies{': ' if found else ''}{shown}; name the one to use"
        )
    return found[0].model


def _entries(content: bytes) -> list[dict[str, Any]]:
    try:
        body: Any = json.loads(content)
        entries = body["data"]
        if all(isinstance(entry["id"], str) and entry["id"] for entry in entries):
            return entries
    except (ValueError, TypeError, KeyError):
        pass
    raise NotReady("its answer to GET /v1/models is no list of models; is it OpenAI-compatible?")


@dataclass(frozen=True, slots=True)
class _Entry:
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.fields["id"]

    @property
    def is_base(self) -> bool:
        """Adapters have a parent (vLLM and ours); our lists hold reward models too."""
        return not self.fields.get("parent") and self.fields.get("kind", "policy") == "policy"

    @property
    def model(self) -> RemoteModel:
        limits = (self.fields.get(key) for key in ("max_input_tokens", "max_model_len"))
        version = self.fields.get("weight_version")
        return RemoteModel(
            name=self.name,
            max_input_tokens=next((n for n in limits if type(n) is int and n > 0), None),
            weight_version=version if isinstance(version, str) else None,
            is_steerward=self.fields.get("kind") == "policy",
        )


def error_of_answer(
    status: int, content: bytes, *, server: str, retry_after: str | None = None
) -> SteerwardError:
    """Return the error that another server answered with, as our own callers understand it.

    Args:
        status: Of the answer.
        content: Its body, or the beginning of one that is too long to be an error.
        server: Its address, to be told.
        retry_after: The header of that name.
    """
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    error = error_of_body(status, body, server=server)
    if error.is_retryable:
        error.retry_after_s = _seconds(retry_after)
    return error


def error_of_body(status: int, body: object, *, server: str) -> SteerwardError:
    """Return the error that a JSON body describes, be it an answer or an event of a stream.

    Args:
        status: Of the answer; 500 for an event.
        body: What JSON spells.
        server: Its address, to be told.
    """
    told = error_from_body(status, _openai_form(body))
    if isinstance(told, Unauthorized):
        # Our caller's own key was right: theirs is not the one that was refused.
        return NotReady(
            f"the server {server} refused the API key of this server: {told.message}",
            retry_after_s=_RETRY_AFTER_S,
        )
    if type(told) is InvalidRequest and _is_too_long(body, told.message):
        return InputTooLong(told.message, param=told.param)
    # A status of 0 is that of a client's own errors.
    if type(told) is SteerwardError or told.status == 0:
        return EngineFailure(f"the server {server} failed: {told.message}")
    return told


def connection_error(server: str, error: httpx.HTTPError) -> NotReady:
    """Return the error of a request that was not answered, or not to the end."""
    return NotReady(
        f"the connection to {server} failed ({type(error).__name__}); is the server running?",
        retry_after_s=_RETRY_AFTER_S,
    )


def _openai_form(body: object) -> dict[str, Any]:
    """Return an error body as OpenAI writes it, with a code only if it is one of words.

    vLLM and SGLang give the status as the code, and some of their versions have no outer object.
    """
    fields = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    inner = fields.get("error", fields)
    detail = dict(inner) if isinstance(inner, dict) else {"message": inner}
    if isinstance(message := detail.get("message"), str):
        detail["message"] = message[:_MOST_TOLD]
    words = ("message", "type", "param", "code")
    return {"error": {key: detail[key] for key in words if isinstance(detail.get(key), str)}}


def _is_too_long(body: object, message: str) -> bool:
    """Whether a refusal is one of length: OpenAI says it by its code, vLLM and SGLang in words."""
    code = _openai_form(body)["error"].get("code")
    return code == "context_length_exceeded" or "context length" in message.lower()


def _seconds(given: str | None) -> float:
    """Return the seconds of a header; where it is a date or missing, soon."""
    try:
        return min(max(float(given or ""), 0.0), 60.0)
    except ValueError:
        return _RETRY_AFTER_S
