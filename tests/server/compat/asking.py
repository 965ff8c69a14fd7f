"""Bodies as trainers send them, and what the native route says to the same messages."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.server.compat.families import BOS, END, conversation, render

PAIRS = [
    ("Explain rainbows.", "Light splits in drops. 🌈"),
    ("Why?", "No."),
    ("Hi", "Hello\n\nyou"),
]


def joined(family: str = "chatml") -> list[str]:
    """Texts of the pairs as policies leave them: with a second BOS, and an end too many."""
    return [
        BOS[family] + render(family, conversation(*pair)) + END[family]
        for pair in PAIRS
    ]  # fmt: skip


def prompts(family: str = "chatml") -> list[str]:
    return [render(family, conversation(question), opens_answer=True) for question, _ in PAIRS]


async def post(client: httpx.AsyncClient, url: str, body: Any) -> httpx.Response:
    """Send a body as aiohttp and requests do: escapes in ASCII."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode("ascii")
    return await client.post(url, content=content, headers={"content-type": "application/json"})


async def native(client: httpx.AsyncClient, **steering: Any) -> list[dict[str, Any]]:
    """Return the candidates of the pairs from the native route, each with its gates."""
    items = [{"prompt": question, "candidates": [answer]} for question, answer in PAIRS]
    body = {"items": items, "explain": True, **steering}
    answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    return [
        {"gates": item.get("gates"), **item["candidates"][0]} for item in answer.json()["items"]
    ]
