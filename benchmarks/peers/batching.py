"""LitServe around the plain model: ``python -m benchmarks.peers.batching CHECKPOINT``.

LitServe collects requests that arrive within some milliseconds into a batch, which the plain
model computes padded. It is no dependency of this project; any environment that has it beside
torch and this package will do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve  # pyright: ignore[reportMissingImports]

from benchmarks.plain import PlainTransformers
from benchmarks.served import free_port

MAX_BATCH_SIZE = 8
BATCH_TIMEOUT_S = 0.01


class PlainApi(litserve.LitAPI):
    """One text a request, batches of whatever waits."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S, api_path="/get_reward"
        )
        self._folder = folder

    def setup(self, device: object) -> None:
        """Load the model, in the process that computes."""
        del device
        self._model = PlainTransformers(self._folder)

    # LitServe reads the annotations of what it calls with a request, so there are none.
    def decode_request(self, request, **_: Any):
        """Return the text of a request."""
        (text,) = request["query"]
        return text

    def batch(self, inputs: Sequence[str]) -> list[str]:
        """Return the texts of a batch."""
        return list(inputs)

    def predict(self, x: list[str], **_: Any) -> list[tuple[float, float]]:
        """Return the score of each text with its share of the tokens computed."""
        before = self._model.computed_tokens
        scores = self._model.score(x, batch_size=len(x))
        tokens = (self._model.computed_tokens - before) / len(x)
        return [(score, tokens) for score in scores]

    def unbatch(self, output: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return the outputs of a batch, one by one."""
        return output

    def encode_response(self, output: tuple[float, float], **_: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        score, tokens = output
        return {"rewards": [score], "computed_tokens": tokens}


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    api = PlainApi(parser.parse_args().checkpoint)
    port = free_port()
    print(f"running on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    server = litserve.LitServer(api, accelerator="cpu", timeout=3600)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
