"""Who wins: the best by v . r, on which scale, and what keeps a completion from winning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.rsf.selection import (
    COMPETED,
    Candidate,
    Moments,
    Selection,
    Vector,
    Winner,
    over_quota,
    reference_score,
    select,
)
from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.protocol.rsf import RsfSettings

HELP: Vector = {"help": 1.0}
REFERENCE: Moments = {"help": (0.5, 0.25), "words": (-1.0, 2.0)}
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def candidates(
    *rewards: float, reasons: dict[int, str] | None = None, texts: tuple[str, ...] = WORDS
) -> list[Candidate]:
    return [
        Candidate(0, texts[place], {"help": reward}, (reasons or {}).get(place))
        for place, reward in enumerate(rewards)
    ]


def selected(
    given_candidates: list[Candidate],
    directions: dict[int, Vector] | None = None,
    *,
    reference: Moments | None = None,
    **fields: object,
) -> Selection:
    settings = RsfSettings.model_validate({"reward_scale": "raw", **fields})
    return select(given_candidates, directions or {0: HELP}, reference=reference, settings=settings)


def test_the_best_is_kept() -> None:
    found = selected(candidates(1.0, 3.0, 2.0))
    assert found.winners == (Winner(0, 1, 3.0, 1.0),)
    assert found.reasons == ("not_best", "best", "not_best")
    assert found.scores == ({0: 1.0}, {0: 3.0}, {0: 2.0})


def test_of_level_candidates_the_earlier_is_kept() -> None:
    assert selected(candidates(1.0, 3.0, 3.0)).reasons == ("not_best", "best", "not_best")


def test_a_filtered_candidate_is_never_kept() -> None:
    found = selected(candidates(1.0, 3.0, 2.0, reasons={1: "unfinished"}))
    assert found.reasons == ("not_best", "unfinished", "best")


def test_nothing_is_kept_where_all_were_filtered() -> None:
    found = selected(candidates(1.0, 2.0, reasons={0: "empty", 1: "empty"}), reward_scale="prompt")
    assert found.winners == ()
    assert found.reasons == ("empty", "empty")


@pytest.mark.parametrize("fields", [{}, {"selection": "margin", "margin": 0.0}])
def test_nothing_is_learned_where_nothing_differs(fields: dict[str, Any]) -> None:
    found = selected(candidates(2.0, 2.0 + 1e-9), **fields)
    assert found.winners == ()
    assert found.reasons == ("no_difference", "no_difference")


def test_a_single_candidate_is_kept() -> None:
    assert selected(candidates(2.0)).reasons == ("best",)
    assert selected(candidates(2.0, 3.0, reasons={1: "empty"})).reasons == ("best", "empty")


def test_a_policy_that_always_says_the_same_teaches_nothing() -> None:
    found = selected(candidates(2.0, 2.0, texts=("a b", "A  b\n")))
    assert found.reasons == ("no_difference", "duplicate")


def test_equal_texts_compete_once() -> None:
    pool = candidates(3.0, 3.0, 1.0, texts=("Yes, it is.", "yes,  it is. ", "No."))
    found = selected(pool, selection="top_k", top_k=2)
    assert found.reasons == ("best", "duplicate", "best")
    assert [winner.advantage for winner in found.winners] == [1.0, -1.0]
    kept = selected(pool, selection="top_k", top_k=2, deduplicate=False)
    assert kept.reasons == ("best", "best", "not_best")


def test_a_filtered_text_does_not_make_its_equal_a_duplicate() -> None:
    pool = candidates(3.0, 3.0, 1.0, texts=("yes", "yes", "no"), reasons={0: "unfinished"})
    assert selected(pool).reasons == ("unfinished", "best", "not_best")


def test_equal_texts_of_two_pools_are_no_duplicates() -> None:
    pool = [
        Candidate(0, "yes", {"help": 2.0}, None),
        Candidate(0, "no", {"help": 1.0}, None),
        Candidate(1, "yes", {"help": 2.0}, None),
        Candidate(1, "no", {"help": 1.0}, None),
    ]
    found = selected(pool, {0: HELP, 1: HELP})
    assert found.reasons == ("best", "not_best", "best", "not_best")


def test_the_k_best_are_kept() -> None:
    found = selected(candidates(1.0, 3.0, 2.0, 0.0), selection="top_k", top_k=2)
    assert found.reasons == ("not_best", "best", "best", "not_best")
    everything = selected(candidates(2.0, 2.0), selection="top_k", top_k=4)
    assert everything.reasons == ("best", "best")


def test_all_that_reach_the_threshold_are_kept() -> None:
    found = selected(candidates(1.0, 2.0, 2.0), selection="threshold", threshold=2.0)
    assert found.reasons == ("below_threshold", "best", "best")


def test_the_best_needs_its_margin_above_the_mean() -> None:
    pool = candidates(1.0, 3.0, 2.0)
    assert selected(pool, selection="margin", margin=1.0).reasons[1] == "best"
    found = selected(pool, selection="margin", margin=1.1)
    assert found.reasons == ("not_best", "below_margin", "not_best")
    assert found.winners == ()


TWO_WAYS: dict[int, Vector] = {4: {"help": 1.0}, 7: {"help": -1.0}}


def test_the_pool_of_a_prompt_lets_one_win_under_directions_it_was_not_drawn_for() -> None:
    pool = [Candidate(4, "a", {"help": 2.0}, None), Candidate(4, "b", {"help": 1.0}, None)]
    pool += [Candidate(7, "c", {"help": 3.0}, None), Candidate(7, "d", {"help": 2.5}, None)]
    found = selected(pool, TWO_WAYS, pool="prompt")
    assert [(one.direction, one.candidate) for one in found.winners] == [(4, 2), (7, 1)]
    assert found.reasons == ("not_best", "best", "best", "not_best")
    assert found.scores[0] == {4: 2.0, 7: -2.0}
    own = selected(pool, TWO_WAYS)
    assert [(one.direction, one.candidate) for one in own.winners] == [(4, 0), (7, 3)]
    assert own.scores[0] == {4: 2.0}


def test_one_candidate_can_win_under_several_directions() -> None:
    ways: dict[int, Vector] = {0: {"help": 1.0}, 1: {"help": 0.6, "words": 0.8}}
    pool = [
        Candidate(0, "a", {"help": 2.0, "words": 2.0}, None),
        Candidate(1, "b", {"help": 1.0, "words": 1.0}, None),
    ]
    found = selected(pool, ways, pool="prompt")
    assert [(one.direction, one.candidate) for one in found.winners] == [(0, 0), (1, 0)]


@given(
    help_reward=st.floats(-5, 5), words_reward=st.floats(-5, 5), angle=st.sampled_from([0.6, -0.6])
)
def test_reference_scores_are_those_of_dpa(
    help_reward: float, words_reward: float, angle: float
) -> None:
    """v . ((r - mean) / std), arXiv:2402.18571, with rewards brought to one scale."""
    vector = {"help": 0.8, "words": angle}
    rewards = {"help": help_reward, "words": words_reward, "other": 9.0}
    wanted = 0.8 * (help_reward - 0.5) / 0.25 + angle * (words_reward + 1.0) / 2.0
    pool = [Candidate(0, "a", rewards, None)]
    found = selected(pool, {0: vector}, reference=REFERENCE, reward_scale="reference")
    assert found.scores[0][0] == pytest.approx(wanted)
    assert reference_score(rewards, vector, REFERENCE) == pytest.approx(wanted)


def test_scores_are_raw_where_the_reward_model_has_no_reference() -> None:
    assert reference_score({"help": 3.0, "words": 1.0}, {"help": 0.8, "words": -0.6}, None) == (
        pytest.approx(1.8)
    )


def test_a_reference_that_is_not_known_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequest, match="set it to raw") as caught:
        selected(candidates(1.0), reward_scale="reference")
    assert caught.value.param == "method.rsf.reward_scale"


@pytest.mark.parametrize("reference", [{}, {"help": (0.0, 0.0)}], ids=["none", "zero"])
def test_a_reference_without_the_objectives_spread_is_refused(reference: Moments) -> None:
    with pytest.raises(InvalidRequest, match="no spread of 'help'; set reward_scale to raw"):
        selected(candidates(1.0), reference=reference, reward_scale="reference")


def test_an_objective_that_the_reward_model_lacks_is_refused() -> None:
    with pytest.raises(UnknownObjective, match="no objective 'truth'; it has help"):
        selected(candidates(1.0), {0: {"truth": 1.0}})


def test_on_the_scale_of_a_prompt_an_objective_without_spread_counts_as_0() -> None:
    pool = [
        Candidate(0, "a", {"help": 1.0, "words": 5.0}, None),
        Candidate(0, "b", {"help": 3.0, "words": 5.0}, None),
        Candidate(0, "c", {"help": 99.0, "words": 9.0}, "unfinished"),
    ]
    found = selected(pool, {0: {"help": 0.6, "words": 0.8}}, reward_scale="prompt")
    assert [one[0] for one in found.scores] == pytest.approx([-0.6, 0.6, 0.6 * 97])


rewards_lists = st.lists(
    st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=8
)
reason_lists = st.lists(st.sampled_from([None, None, None, "empty"]), min_size=8, max_size=8)
vectors = st.tuples(st.integers(-5, 5), st.integers(-5, 5)).filter(any)
scales = st.sampled_from(["raw", "prompt", "reference"])
texts = st.lists(st.sampled_from(WORDS), min_size=8, max_size=8)


def pool_of(
    rewards: list[tuple[int, int]], reasons: list[str | None], shift: int = 0
) -> list[Candidate]:
    return [
        Candidate(0, WORDS[i], {"help": h / 4 + shift, "words": w / 4 - shift}, reasons[i])
        for i, (h, w) in enumerate(rewards)
    ]


@given(rewards=rewards_lists, reasons=reason_lists, vector=vectors, scale=scales)
def test_the_winner_has_the_highest_score_of_those_admitted(
    rewards: list[tuple[int, int]], reasons: list[str | None], vector: tuple[int, int], scale: str
) -> None:
    direction = {"help": float(vector[0]), "words": float(vector[1])}
    found = selected(
        pool_of(rewards, reasons), {0: direction}, reference=REFERENCE, reward_scale=scale
    )
    admitted = [one[0] for one, why in zip(found.scores, reasons, strict=False) if why is None]
    for winner in found.winners:
        assert winner.score == max(admitted)
    spread = max(admitted, default=0.0) - min(admitted, default=0.0)
    assert len(found.winners) == (len(admitted) == 1 or spread > 1e-3)


@given(
    rewards=rewards_lists,
    reasons=reason_lists,
    vector=vectors,
    stretch=st.sampled_from([0.5, 2.0, 64.0]),
    shift=st.integers(-3, 3),
)
def test_neither_a_longer_direction_nor_shifted_rewards_change_who_wins_on_a_prompts_scale(
    rewards: list[tuple[int, int]],
    reasons: list[str | None],
    vector: tuple[int, int],
    stretch: float,
    shift: int,
) -> None:
    def winners(direction: Vector, shift: int) -> tuple[str, ...]:
        pool = pool_of(rewards, reasons, shift)
        return selected(pool, {0: direction}, reward_scale="prompt").reasons

    direction = {"help": float(vector[0]), "words": float(vector[1])}
    longer = {name: value * stretch for name, value in direction.items()}
    assert winners(direction, 0) == winners(longer, 0)
    before = selected(pool_of(rewards, reasons), {0: direction}, reward_scale="prompt")
    after = selected(pool_of(rewards, reasons, shift), {0: direction}, reward_scale="prompt")
    for one, other in zip(before.scores, after.scores, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-9)


@given(
    rewards=rewards_lists,
    reasons=reason_lists,
    words=texts,
    selection=st.sampled_from(
        [
            {"selection": "argmax"},
            {"selection": "top_k", "top_k": 2},
            {"selection": "threshold", "threshold": 0.0},
            {"selection": "margin", "margin": 0.5},
        ]
    ),
    pool=st.sampled_from(["direction", "prompt"]),
)
def test_nothing_that_was_filtered_or_is_a_duplicate_is_ever_kept(
    rewards: list[tuple[int, int]],
    reasons: list[str | None],
    words: list[str],
    selection: dict[str, Any],
    pool: str,
) -> None:
    given_pool = [
        Candidate(i % 2, words[i], {"help": float(h), "words": float(w)}, reasons[i])
        for i, (h, w) in enumerate(rewards)
    ]
    ways: dict[int, Vector] = {0: {"help": 1.0}, 1: {"words": 1.0}}
    found = selected(given_pool, ways, pool=pool, **selection)
    kept = {winner.candidate for winner in found.winners}
    for place, (one, reason) in enumerate(zip(given_pool, found.reasons, strict=True)):
        assert (reason == "best") == (place in kept)
        assert one.reason is None or reason == one.reason
        assert one.reason is not None or reason in COMPETED | {"duplicate"}
    for number in ways:
        names = [given_pool[w.candidate].text for w in found.winners if w.direction == number]
        assert len(names) == len(set(names))
        if pool == "direction":
            own = [w.candidate % 2 for w in found.winners if w.direction == number]
            assert set(own) <= {number}


@given(
    winners=st.lists(
        st.builds(
            Winner,
            direction=st.integers(0, 2),
            candidate=st.integers(0, 9),
            score=st.just(0.0),
            advantage=st.integers(-3, 3).map(float),
        ),
        max_size=20,
    ),
    most=st.integers(1, 5),
)
def test_quotas_hold_and_keep_those_furthest_above_their_pool(
    winners: list[Winner], most: int
) -> None:
    dropped = over_quota(winners, most)
    for direction in range(3):
        own = [place for place, one in enumerate(winners) if one.direction == direction]
        kept = [place for place in own if place not in dropped]
        assert len(kept) == min(most, len(own))
        for lost in dropped.intersection(own):
            assert all(
                (winners[place].advantage, -place) > (winners[lost].advantage, -lost)
                for place in kept
            )


def test_without_a_quota_nothing_is_dropped() -> None:
    assert over_quota([Winner(0, 0, 0.0, 0.0)] * 3, None) == set()
