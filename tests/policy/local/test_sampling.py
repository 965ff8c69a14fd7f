from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from steerward.policy.local.sampling import Draw, draw_tokens, numbers_for


def draw(**changes: Any) -> Draw:
    options: dict[str, Any] = {
        "temperature": 1.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": None,
        "numbers": random.Random(0),
    }
    return Draw(**(options | changes))


def shares(logits: list[float], count: int = 4000, **changes: Any) -> list[float]:
    draws = [draw(numbers=numbers_for(7, i), **changes) for i in range(count)]
    tokens = draw_tokens(torch.tensor([logits] * count), draws).tokens
    return [tokens.count(i) / count for i in range(len(logits))]


def test_tokens_come_as_often_as_their_probability() -> None:
    logits = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert shares(logits) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.025)


def test_temperature_sharpens() -> None:
    wanted = [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]
    logits = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert shares(logits, temperature=0.5) == pytest.approx(wanted, abs=0.025)


def test_temperature_zero_takes_the_likeliest() -> None:
    assert shares([0.1, 2.0, 1.9], count=50, temperature=0.0) == [0.0, 1.0, 0.0]


def test_a_temperature_near_0_takes_the_likeliest_too() -> None:
    assert shares([0.1, 2.0, 1.9], count=50, temperature=1e-50) == [0.0, 1.0, 0.0]


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = [math.log(p) for p in (0.15, 0.5, 0.05, 0.3)]
    kept = shares(logits, top_p=0.7)
    assert kept == pytest.approx([0.0, 0.625, 0.0, 0.375], abs=0.025)
    assert shares(logits, count=200, top_p=0.3) == [0.0, 1.0, 0.0, 0.0]


def test_penalties_are_taken_off_tokens_drawn_before() -> None:
    one = draw(temperature=0.0, presence_penalty=1.0, frequency_penalty=0.5)
    logits = torch.tensor([[2.0, 1.6, 0.0]])
    # 2.0; then 0.5 against 1.6; then 0.5 against 0.1; then 0.0 against 0.1 and 0.0.
    assert [draw_tokens(logits, [one]).tokens[0] for _ in range(4)] == [0, 1, 0, 1]


def test_what_a_sequence_draws_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 50, generator=generator)
    settings: list[dict[str, Any]] = [
        {"top_p": 0.8},
        {"temperature": 0.0},
        {"temperature": 0.4, "top_logprobs": 3},
        {"top_p": 0.5, "frequency_penalty": 1.0},
        {},
        {"temperature": 1.7},
    ]

    def make(i: int) -> Draw:
        return draw(numbers=numbers_for(3, i), **settings[i])

    together = draw_tokens(logits, [make(i) for i in range(6)]).tokens
    alone = [draw_tokens(logits[i : i + 1], [make(i)]).tokens[0] for i in range(6)]
    assert together == alone


def test_log_probabilities_are_the_models_own() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    drawn = draw_tokens(logits, [draw(temperature=0.0, top_logprobs=2)])
    expected = logits.log_softmax(-1)[0].tolist()
    assert drawn.logprobs == pytest.approx([expected[1]])
    assert drawn.top_tokens == [[1, 2]]
    assert drawn.top_logprobs[0] == pytest.approx([expected[1], expected[2]])


def test_samples_of_one_seed_have_streams_of_their_own() -> None:
    first = [numbers_for(5, i).random() for i in range(20)]
    assert len(set(first)) == 20
    assert first == [numbers_for(5, i).random() for i in range(20)]
    assert numbers_for(None, 0).random() != numbers_for(None, 0).random()


def test_weights_that_load_meanwhile_change_no_draw() -> None:
    """transformers sets the default data type of the whole process while it loads some."""
    settings: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.1,
    }

    logits = 2 * torch.randn(64, 200, generator=torch.Generator().manual_seed(1))

    def drawn() -> list[list[int]]:
        draws = [draw(numbers=numbers_for(3, i), **settings) for i in range(64)]
        return [draw_tokens(logits, draws).tokens for _ in range(20)]

    expected = drawn()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = drawn()
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected
