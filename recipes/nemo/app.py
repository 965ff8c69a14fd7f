"""A resources server of NeMo Gym that asks a Steerward server."""

import os
from typing import Any

from fastapi import FastAPI

from steerward.clients.nemo_gym import verifier

app = FastAPI()
_verify = verifier(
    os.environ.get("STEERWARD_URL", "http://127.0.0.1:8000"),
    api_key=os.environ.get("STEERWARD_API_KEY"),
)


@app.post("/verify")
async def verify(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with its reward."""
    return await _verify(body)
