"""How tests ask for completions over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
ASK: dict[str, Any] = {"messages": MESSAGES, "max_completion_tokens": 12, "seed": 1}
CONCISE = {"helpfulness": 2.0, "verbosity": -1.0}


async def ask(client: httpx.AsyncClient, path: str = CHAT, **fields: Any) -> dict[str, Any]:
    answer = await client.post(path, json={**(ASK if path == CHAT else {}), **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, path: str = CHAT, **fields: Any) -> tuple[int, Any]:
    answer = await client.post(path, json={**(ASK if path == CHAT else {}), **fields})
    return answer.status_code, answer.json()["error"]


def events(text: str) -> list[Any]:
    """Return the data of server-sent events; the end mark as it is."""
    found = [block.removeprefix("data: ") for block in text.strip().split("\n\n")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


async def streamed(client: httpx.AsyncClient, path: str = CHAT, **fields: Any) -> list[Any]:
    body = {**(ASK if path == CHAT else {}), "stream": True, **fields}
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, end = events(answer.text)
    assert end == "[DONE]"
    return chunks


def policy_of(app: FastAPI) -> Any:
    (steered,) = app.state.steerward.policies.values()
    return steered.policy


@contextmanager
def held(app: FastAPI, *, after: int) -> Iterator[threading.Event]:
    """Make the policy's device wait when it has run some times; gives what is set when it does."""
    release, is_held, passes = threading.Event(), threading.Event(), 0

    def hold(*_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes > after:
            is_held.set()
            release.wait(30.0)

    hook = policy_of(app)._weights.own.model.register_forward_pre_hook(hold)
    try:
        yield is_held
    finally:
        release.set()
        hook.remove()
