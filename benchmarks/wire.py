"""What answers and requests cost to encode and decode: JSON, arrays, text, token ids.

    python -m benchmarks.wire [--rounds N] [--out FILE.json]

No forward pass: rewards are random, of 19 gated objectives. Both encodings are checked to hold
the same numbers, and text and ids to give the same groups, before anything is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch

from benchmarks.measure import environment, finish, interleaved
from benchmarks.workload import NUM_OBJECTIVES, Item, grouped_items, write_checkpoint
from steerward.clients.arrays import ScoreArrays
from steerward.engine.answer import AnswerBuilder
from steerward.engine.arrays import ScoredArrays
from steerward.engine.items import ItemOutput
from steerward.engine.tokenization import TokenizerPool, tokens_of
from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.scoring import ScoreRequest, ScoreResponse

GROUP_SIZE = 8
CANDIDATES = (64, 1024)
_WAYS: dict[str, tuple[Callable[[ScoredArrays], bytes], Callable[[bytes], object]]] = {
    "JSON": (lambda scored: orjson.dumps(scored.by_name()), ScoreResponse.model_validate_json),
    "arrays": (ScoredArrays.to_safetensors, ScoreArrays.from_safetensors),
}


def run(folder: Path, *, rounds: int, sizes: Sequence[int] = CANDIDATES) -> dict[str, Any]:
    """Return all figures, or exit if two ways differ; a tiny checkpoint is written to a folder."""
    write_checkpoint(folder, layers=1, width=64)
    model = load_reward_model(folder, device="cpu")
    result: dict[str, Any] = {}
    for size in sizes:
        items = grouped_items(size // GROUP_SIZE, candidates=GROUP_SIZE)
        result[f"answer of {size}"] = measure_answer(model, items, rounds=rounds)
        result[f"request of {size}"] = measure_request(model, items, rounds=rounds)
    return result


def measure_answer(model: RewardModel, items: Sequence[Item], *, rounds: int) -> dict[str, Any]:
    """Return bytes, and milliseconds to encode and to decode, of each way to answer."""
    group = Group((1,), [(2,)] * GROUP_SIZE, gating_position=0)
    outputs = [_output() for _ in items]
    encode: dict[str, Callable[[], bytes]] = {}
    decode: dict[str, Callable[[], object]] = {}
    contents: dict[str, bytes] = {}
    for suffix, explain in (("", False), (", explained", True)):
        bodies = [item.body() for item in items]
        request = ScoreRequest.model_validate({"items": bodies, "explain": explain})
        builder = AnswerBuilder(model, name="bench", request=request)
        scored = partial(builder.build, [[group]] * len(items), outputs)
        for way, (write, read) in _WAYS.items():
            name = way + suffix
            encode[name] = lambda write=write, scored=scored: write(scored())
            contents[name] = encode[name]()
            decode[name] = partial(read, contents[name])
        _check_same(contents[f"JSON{suffix}"], contents[f"arrays{suffix}"])
    return _figures(contents, {"encode": encode, "decode": decode}, rounds=rounds)


def measure_request(model: RewardModel, items: Sequence[Item], *, rounds: int) -> dict[str, Any]:
    """Return bytes, and milliseconds to parse, and to parse and encode, of text and of ids."""
    pool = TokenizerPool(model, num_threads=1)
    with closing(asyncio.new_event_loop()) as loop:

        def parse(content: bytes) -> ScoreRequest:
            return ScoreRequest.model_validate(json.loads(content))

        def read(content: bytes) -> list[list[Group]]:
            return loop.run_until_complete(pool.encode(parse(content).items))

        text = orjson.dumps({"items": [item.body() for item in items]})
        groups = read(text)
        tokens = [{"tokens": tokens_of(model, i, g)["tokens"]} for i, g in enumerate(groups)]
        contents = {"text": text, "token ids": orjson.dumps({"items": tokens})}
        if read(contents["token ids"]) != groups:
            raise SystemExit("text and ids give different groups, so nothing is timed")
        steps: dict[str, dict[str, Callable[[], object]]] = {
            "parse": {name: partial(parse, content) for name, content in contents.items()},
            "read": {name: partial(read, content) for name, content in contents.items()},
        }
        figures = _figures(contents, steps, rounds=rounds)
    pool.close()
    return figures


def _figures(
    contents: dict[str, bytes], steps: dict[str, dict[str, Callable[[], Any]]], *, rounds: int
) -> dict[str, Any]:
    figures: dict[str, Any] = {name: {"bytes": len(c)} for name, c in contents.items()}
    for step, methods in steps.items():
        for name, seconds in interleaved(methods, rounds=rounds).items():
            figures[name][f"{step}_ms"] = statistics.median(seconds) * 1e3
    return figures


def _output() -> ItemOutput:
    rewards_GK, gates_K = torch.randn(GROUP_SIZE, NUM_OBJECTIVES), torch.rand(NUM_OBJECTIVES)
    zeros = {"tokens_saved": 0, "tokens_cached": 0, "queue_s": 0.0, "inference_s": 0.0}
    return ItemOutput(rewards_GK, rewards_GK @ gates_K, gates_K, gates_K, **zeros)


def _check_same(by_name: bytes, arrays: bytes) -> None:
    candidates = [c for item in json.loads(by_name)["items"] for c in item["candidates"]]
    expected = [list(candidate["rewards"].values()) for candidate in candidates]
    if ScoreArrays.from_safetensors(arrays).rewards.tolist() != expected:
        raise SystemExit("the encodings hold different rewards, so nothing is timed")


def print_table(name: str, figures: dict[str, dict[str, float]]) -> None:
    """Print one subject for people."""
    print(f"\n{name} candidates, {NUM_OBJECTIVES} objectives")
    for way, values in figures.items():
        steps = [f"{key[:-3]} {ms:8.2f} ms" for key, ms in values.items() if key.endswith("_ms")]
        print(f"  {way:18} {values['bytes']:>10,} bytes   {'   '.join(steps)}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, help="file that keeps the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), rounds=options.rounds)
    for name, figures in result.items():
        print_table(name, figures)
    head = {"benchmark": "wire", "rounds": options.rounds, **environment()}
    finish(head | result, options.out)


if __name__ == "__main__":
    main()
