"""What answers and requests cost to encode and decode: JSON, arrays, text, token ids.

    python -m benchmarks.wire [--rounds N] [--out FILE.json]

No forward pass: rewards are random, of 19 gated objectives. Both encodings are checked to hold
the same numbers, and text and ids to give the same groups, before anything is timed.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch

from benchmarks.command import main, table
from benchmarks.measure import interleaved
from benchmarks.workload import NUM_OBJECTIVES, Item, groups_of_8, write_checkpoint
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
_WAYS: dict[str, tuple[Callable[[ScoredArrays], bytes], Callable[[bytes], object]]] = {
    "JSON": (lambda scored: orjson.dumps(scored.by_name()), ScoreResponse.model_validate_json),
    "arrays": (ScoredArrays.to_safetensors, ScoreArrays.from_safetensors),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 21
    few: int = 64
    """Candidates of the smaller request."""
    many: int = 1024
    """Candidates of the larger one."""


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return all figures; a tiny checkpoint is written to a folder.

    Raises:
        SystemExit: If two ways hold different numbers.
    """
    write_checkpoint(folder, layers=1, width=64)
    model = load_reward_model(folder, device="cpu")
    figures: dict[str, Any] = {}
    for size in (setting.few, setting.many):
        items = groups_of_8(size // GROUP_SIZE)(0)
        figures[f"answer of {size}"] = measure_answer(model, items, rounds=setting.rounds)
        figures[f"request of {size}"] = measure_request(model, items, rounds=setting.rounds)
    return {"figures": figures, "tables": [_table(*one) for one in figures.items()]}


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
        for name, seconds in interleaved(
            {n: lambda _, m=m: m() for n, m in methods.items()}, rounds=rounds
        ).items():
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


def _table(name: str, figures: dict[str, dict[str, float]]) -> dict[str, Any]:
    steps = [key for key in next(iter(figures.values())) if key.endswith("_ms")]
    rows = [
        [way, f"{values['bytes']:,}", *(f"{values[step]:.2f}" for step in steps)]
        for way, values in figures.items()
    ]
    columns = [name, "bytes", *(f"{step.removesuffix('_ms')}, ms" for step in steps)]
    return table(f"{name} candidates, {NUM_OBJECTIVES} objectives", columns, rows)


if __name__ == "__main__":
    main(Setting, run)
