"""What one direction does to real completions: told to the policy, and chosen by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steerward.protocol.tokenization import TokenizeRequest
from tests.policy.steering.models import (
    CONCISE,
    SAMPLING,
    TURNS,
    Models,
    answer_of,
    ask,
    assert_equal_rewards,
    by_hand_neighbours,
    drawn_by_hand,
    ranked,
    scored,
    system_of,
)

pytestmark = pytest.mark.anyio


async def test_prompt_mode_draws_what_the_same_system_turn_by_hand_draws(models: Models) -> None:
    answer = await answer_of(models.steered, ask(direction=CONCISE, steering="prompt", n=3))
    by_hand = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 3)
    plain = await drawn_by_hand(models.policy, [None] * 3)
    assert answer.texts == by_hand.texts
    assert answer.texts != plain.texts
    report = answer.report
    assert (report.mode, report.mechanisms) == ("prompt", ("conditioning",))
    assert (report.rule, report.system) == ("tiny", system_of(CONCISE))
    assert report.direction == CONCISE.components
    assert report.reward_model == "pocket"
    assert report.warnings == ()


async def test_direction_stands_in_front_of_the_callers_own_system_turn(models: Models) -> None:
    turns = ({"role": "system", "content": "Be kind."}, *TURNS)
    answer = await answer_of(models.steered, ask(turns=turns, direction=CONCISE))
    written = f"{system_of(CONCISE)}\n\nBe kind."
    assert answer.report.system == written
    assert answer.texts == (await drawn_by_hand(models.policy, [written])).texts


async def test_rewards_without_steering_are_those_of_scoring_the_same_texts(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=3))
    assert answer.texts == (await drawn_by_hand(models.policy, [None] * 3)).texts
    assert_equal_rewards(answer.rewards, await scored(models.engine, answer.texts))
    assert (answer.report.mode, answer.report.mechanisms) == ("prompt", ())
    assert answer.generation.ranking is not None
    assert answer.generation.ranking.weight_version == models.engine.weight_version
    assert answer.generation.ranking.direction_scale is None


async def test_rewards_of_conditioned_completions_are_for_the_turns_as_they_came(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2, direction=CONCISE))
    assert_equal_rewards(answer.rewards, await scored(models.engine, answer.texts, CONCISE))
    assert answer.generation.ranking is not None
    assert answer.generation.ranking.direction_scale == "standardised"


async def test_plain_completions_come_piece_by_piece_and_end_with_their_rewards(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2))
    *pieces, first_end, second_end = answer.parts
    assert len(pieces) > 2
    assert {(piece.finish_reason, piece.reward) for piece in pieces} == {(None, None)}
    assert [first_end.index, second_end.index] == [0, 1]
    for end in (first_end, second_end):
        assert end.finish_reason in ("stop", "length")
        assert end.reward is not None


async def test_nothing_is_scored_where_no_rewards_are_wanted(models: Models) -> None:
    answer = await answer_of(models.steered, ask(n=2, with_rewards=False))
    assert models.scoring_requests == 0
    assert all(part.reward is None for part in answer.parts)
    ends = [part for part in answer.parts if part.finish_reason is not None]
    assert sorted(end.index for end in ends) == [0, 1]
    assert answer.report.reward_model is None


@pytest.mark.parametrize("n", [1, 3, 6])
async def test_best_of_returns_the_best_of_exactly_the_samples_drawn(
    models: Models, n: int
) -> None:
    request = ask(n=n, best_of=6, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 6)
    candidates = await scored(models.engine, samples.texts, CONCISE)
    expected = ranked(samples.texts, candidates, by="direction_score")
    assert len(set(samples.texts)) > 3
    assert answer.texts == expected[:n]
    by_text = dict(zip(samples.texts, candidates, strict=True))
    assert_equal_rewards(answer.rewards, [by_text[text] for text in answer.texts])
    assert answer.report.mechanisms == ("conditioning", "selection")
    assert answer.report.samples == 6
    assert answer.report.warnings == ()
    # Each choice is one part: nothing can be returned before all are scored.
    assert [part.index for part in answer.parts] == list(range(n))


async def test_best_of_without_a_direction_chooses_by_the_reward_models_own_score(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2, best_of=6))
    samples = await drawn_by_hand(models.policy, [None] * 6)
    candidates = await scored(models.engine, samples.texts)
    assert answer.texts == ranked(samples.texts, candidates, by="score")[:2]
    assert (answer.report.mode, answer.report.mechanisms) == ("best_of", ("selection",))


async def test_equal_samples_each_have_their_turn(models: Models) -> None:
    """Completions of one token: several are equal, and so are their scores."""
    sampling = replace(SAMPLING, max_tokens=1, top_p=0.5)
    request = ask(n=12, best_of=12, sampling=sampling, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 12, sampling)
    assert len(set(samples.texts)) < 12
    assert sorted(answer.texts) == sorted(samples.texts)
    scores = [reward.direction_score for reward in answer.rewards]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert (await answer_of(models.steered, request)).texts == answer.texts


async def test_greedy_samples_are_all_the_same_and_the_report_says_so(models: Models) -> None:
    sampling = replace(SAMPLING, temperature=0.0)
    request = ask(n=2, best_of=3, sampling=sampling, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    (by_hand,) = (await drawn_by_hand(models.policy, [system_of(CONCISE)], sampling)).texts
    assert answer.texts == [by_hand] * 2
    (warning,) = answer.report.warnings
    assert "temperature 0" in warning


async def test_chosen_completions_keep_their_logprobs(models: Models) -> None:
    sampling = replace(SAMPLING, top_logprobs=1)
    request = ask(n=2, best_of=4, sampling=sampling, direction=CONCISE)
    answer = await answer_of(models.steered, request)
    for part in answer.parts:
        assert 0 < len(part.logprobs) <= 12
        spelled = b"".join(one.chosen.bytes for one in part.logprobs)
        assert spelled.decode(errors="replace").startswith(part.text)


@pytest.mark.parametrize("steering", ["prompt", "best_of", "neighbours"])
async def test_completions_that_end_together_are_scored_in_one_request_that_reads_the_prompt_once(
    models: Models, steering: str
) -> None:
    counts: dict[str, Any] = {"n": 5} if steering == "prompt" else {"n": 1}
    if steering == "best_of":
        counts["best_of"] = 5
    await answer_of(models.steered, ask(direction=CONCISE, steering=steering, **counts))
    assert models.scoring_requests == 1
    assert models.counted("batch_tokens_count") == 1
    computed = models.counted("computed_tokens_total")
    if steering == "neighbours":
        texts = (await by_hand_neighbours(models)).texts
    else:
        texts = (await drawn_by_hand(models.policy, [system_of(CONCISE)] * 5)).texts
    item = {"prompt": list(TURNS), "candidates": texts}
    tokens = await models.engine.tokenize(TokenizeRequest.model_validate({"items": [item]}))
    (read,) = tokens["items"]
    assert computed == read["prompt_tokens"] + sum(read["candidate_tokens"])
    assert models.counted("prefix_tokens_saved_total") == 4 * read["prompt_tokens"]


@pytest.mark.parametrize("fields", [{"n": 6}, {"n": 3, "best_of": 6}], ids=["prompt", "best_of"])
async def test_completions_that_end_early_are_scored_while_others_are_drawn(
    models: Models, fields: dict[str, Any]
) -> None:
    sampling = replace(SAMPLING, max_tokens=150, stop=("e",))
    answer = await answer_of(models.steered, ask(direction=CONCISE, sampling=sampling, **fields))
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 6, sampling)
    lengths = sorted(map(len, samples.texts))
    assert lengths[2] < lengths[-1]
    assert models.scoring_requests == 2
    assert models.counted("candidates_total") == 6
    candidates = await scored(models.engine, samples.texts, CONCISE)
    by_text = dict(zip(samples.texts, candidates, strict=True))
    assert_equal_rewards(answer.rewards, [by_text[text] for text in answer.texts])
    best = ranked(samples.texts, candidates, by="direction_score")[:3]
    assert answer.texts == (best if "best_of" in fields else samples.texts)


async def test_tokens_of_all_samples_are_counted_and_those_of_the_prompt_once(
    models: Models,
) -> None:
    request = ask(n=1, best_of=5, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 5)
    single = await drawn_by_hand(models.policy, [system_of(CONCISE)])
    assert answer.generation.completion_tokens == samples.num_tokens > 12
    assert answer.generation.prompt_tokens == samples.prompt_tokens == single.prompt_tokens
