"""A policy with a reward model, and what they give when they are asked by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.policy.generation import GenerationRequest, Piece, Prompt, Sampling
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.steering import (
    Part,
    Reward,
    SteeredGeneration,
    SteeredPolicy,
    SteeringReport,
    SteeringRequest,
)
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.scoring import ScoreRequest
from tests.tolerances import SCORE_TOLERANCE

TURNS = ({"role": "user", "content": "Hello, how are you?"},)
SAMPLING = Sampling(max_tokens=12, temperature=1.0, seed=3)
LONG = Sampling(max_tokens=200, temperature=0.0)


def at_angle(degrees: float) -> PreferenceDirection:
    return PreferenceDirection.from_angle(degrees, "helpfulness", "verbosity")


CONCISE = at_angle(-20.0)
TRUTHFUL = PreferenceDirection({"truthfulness": 1.0})
"""An objective of the reward model that the policy was not trained on."""


@dataclass
class Models:
    """A policy and the reward model that ranks its completions, joined as the server does it."""

    policy: LocalPolicy
    engine: Engine
    metrics: Metrics
    steered: SteeredPolicy

    def counted(self, name: str, **labels: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                f"steerward_{name}", {"model": "pocket", **labels}
            )
            or 0.0
        )

    @property
    def scoring_requests(self) -> float:
        return self.counted("stage_duration_seconds_count", stage="total")


@dataclass
class Answer:
    """All that was returned for one request."""

    parts: list[Part]
    generation: SteeredGeneration

    @property
    def report(self) -> SteeringReport:
        return self.generation.report

    @property
    def texts(self) -> list[str]:
        found = [""] * (1 + max(part.index for part in self.parts))
        for part in self.parts:
            found[part.index] += part.text
        return found

    @property
    def rewards(self) -> list[Reward]:
        by_index = {part.index: part.reward for part in self.parts if part.reward is not None}
        return [by_index[index] for index in range(len(self.texts))]


def ask(
    *, turns: Sequence[Mapping[str, str]] = TURNS, timeout_s: float = 60.0, **fields: Any
) -> SteeringRequest:
    given: dict[str, Any] = {"prompt": Prompt(tuple(turns)), "sampling": SAMPLING, **fields}
    return SteeringRequest(deadline=time.perf_counter() + timeout_s, **given)


async def answer_of(steered: SteeredPolicy, request: SteeringRequest) -> Answer:
    generation = await steered.begin(request)
    try:
        return Answer([part async for part in generation], generation)
    finally:
        await generation.aclose()


@dataclass
class Drawn:
    """Completions that the policy draws without any steering."""

    texts: list[str]
    num_tokens: int
    prompt_tokens: int


async def drawn_by_hand(
    policy: LocalPolicy, systems: Sequence[str | None], sampling: Sampling = SAMPLING
) -> Drawn:
    """Draw one completion for each system turn that a caller would have written."""
    prompts = [
        Prompt(TURNS if text is None else ({"role": "system", "content": text}, *TURNS))
        for text in systems
    ]
    deadline = time.perf_counter() + 60.0
    generation = await policy.begin(GenerationRequest(prompts, sampling, deadline))
    pieces: list[Piece] = [piece async for piece in generation]
    texts = [
        "".join(piece.text for piece in pieces if piece.index == index)
        for index in range(len(prompts))
    ]
    tokens = sum(piece.num_tokens for piece in pieces)
    return Drawn(texts, tokens, generation.prompt_tokens)


async def scored(
    engine: Engine, texts: Sequence[str], direction: PreferenceDirection | None = None
) -> list[dict[str, Any]]:
    body: dict[str, Any] = {"items": [{"prompt": list(TURNS), "candidates": list(texts)}]}
    if direction is not None:
        body["direction"] = dict(direction.components)
    found = await engine.score(ScoreRequest.model_validate(body))
    return found.answer["items"][0]["candidates"]


def ranked(texts: Sequence[str], candidates: Sequence[dict[str, Any]], by: str) -> list[str]:
    order = sorted(range(len(texts)), key=lambda index: -candidates[index][by])
    return [texts[index] for index in order]


def system_of(direction: PreferenceDirection) -> str:
    values = direction.components
    helpfulness, verbosity = (round(100 * values[n]) for n in ("helpfulness", "verbosity"))
    return f"Maximize helpfulness*{helpfulness} + verbosity*{verbosity}"


@contextmanager
def held(module: nn.Module) -> Iterator[threading.Event]:
    """Keep a device in its next forward pass; gives what is set when it is there."""
    release, is_held = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        is_held.set()
        release.wait(30.0)

    hook = module.register_forward_pre_hook(hold)
    try:
        yield is_held
    finally:
        release.set()
        hook.remove()


def close_to(value: Any) -> Any:
    tolerance = SCORE_TOLERANCE[torch.float32]
    return None if value is None else pytest.approx(value, abs=tolerance, rel=tolerance)


def assert_equal_rewards(found: Sequence[Reward], expected: Sequence[Mapping[str, Any]]) -> None:
    for reward, candidate in zip(found, expected, strict=True):
        assert reward.rewards == close_to(candidate["rewards"])
        assert reward.score == close_to(candidate["score"])
        assert reward.direction_score == close_to(candidate.get("direction_score"))


NEAR = (-45.0, -32.5, -20.0, -5.0, 10.0)
"""Of 30 degrees around the target, what lies in the cone; more of it on the right."""


async def by_hand_neighbours(models: Models) -> Drawn:
    return await drawn_by_hand(models.policy, [system_of(at_angle(angle)) for angle in NEAR])
