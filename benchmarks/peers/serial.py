"""The way of OpenRLHF's `serve_rm`: ``python -m benchmarks.peers.serial CHECKPOINT``.

Its method in our own words, after openrlhf/cli/serve_rm.py: one process whose handler computes
where the event loop runs, so that requests wait for each other and never share a batch; the texts
of a request in one batch, padded on the left, with positions counted from the mask; heads on the
hidden state of every token, of which the last is kept. Unlike there, nothing is truncated and no
end token is put behind the text, or scores would not be comparable. The gate, which it does not
have, is evaluated once a sequence, at the end of its prompt.

Axis legend: B sequences of a batch, L their padded length, K objectives, H hidden.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from torch import Tensor

from benchmarks.plain import PlainTransformers


class LeftPadded(PlainTransformers):
    """The plain model as `serve_rm` runs it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, padding_side="left")

    def hidden(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the final hidden states of a batch; positions start behind the padding."""
        positions_BL = (mask_BL.cumsum(dim=-1) - 1).masked_fill(mask_BL == 0, 1)
        return self.backbone(
            ids_BL, attention_mask=mask_BL, position_ids=positions_BL, use_cache=False
        ).last_hidden_state

    def rewards(self, hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the rewards of each sequence, (B, K), out of those of every token."""
        del mask_BL
        rewards_BLK = self.parts.heads(hidden_BLH.flatten(0, 1)).unflatten(0, hidden_BLH.shape[:2])
        return rewards_BLK[:, -1]


def create_app(folder: Path) -> FastAPI:
    """Return the application."""
    model = LeftPadded(folder)
    app = FastAPI()

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ready"})

    @app.post("/get_reward")
    async def get_reward(request: Request) -> JSONResponse:
        texts = (await request.json())["query"]
        before = model.computed_tokens
        rewards = model.score(texts, batch_size=len(texts))
        return JSONResponse({"rewards": rewards, "computed_tokens": model.computed_tokens - before})

    return app


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    app = create_app(parser.parse_args().checkpoint)
    uvicorn.run(app, port=0, log_level="info", access_log=False)


if __name__ == "__main__":
    main()
