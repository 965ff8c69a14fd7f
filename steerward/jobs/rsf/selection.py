"""Which completions of a prompt are learned: those with the highest ``v . r``.

DPA (arXiv:2402.18571) keeps the best of n for a prompt and a direction. Nothing here draws,
scores or waits: rewards in, winners and reasons out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.protocol.rsf import RsfSettings

BEST, NOT_BEST, NO_DIFFERENCE = "best", "not_best", "no_difference"
BELOW_THRESHOLD, BELOW_MARGIN, OVER_QUOTA = "below_threshold", "below_margin", "over_quota"
DUPLICATE = "duplicate"
COMPETED = frozenset({BEST, NOT_BEST, NO_DIFFERENCE, BELOW_THRESHOLD, BELOW_MARGIN, OVER_QUOTA})
"""Reasons of completions that no filter left out, and that are no duplicates."""

Vector = Mapping[str, float]
"""A direction, or rewards, by objective in the reward model's names."""
Moments = Mapping[str, tuple[float, float]]
"""Mean and spread by objective."""

# Rewards of equal texts differ by so much of their size: what float32 leaves.
_NOISE = 1e-6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scored completion of a prompt."""

    direction: int
    """Which direction it was drawn for."""
    text: str
    rewards: Vector
    reason: str | None
    """Why a filter left it out, if one did."""


@dataclass(frozen=True, slots=True)
class Winner:
    """A completion that is kept for a direction."""

    direction: int
    candidate: int
    """Place among the prompt's candidates."""
    score: float
    """``v . r`` on the chosen scale."""
    advantage: float
    """By how much it is above its pool's mean."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What became of the candidates of one prompt."""

    scores: tuple[Mapping[int, float], ...]
    """Of each candidate: ``v . r`` on the chosen scale under each direction of its pools."""
    winners: tuple[Winner, ...]
    """By direction, then by place."""
    reasons: tuple[str, ...]
    """Of each candidate: "best" if it won under any direction, else why not under its own."""


def select(
    candidates: Sequence[Candidate],
    directions: Mapping[int, Vector],
    *,
    reference: Moments | None,
    settings: RsfSettings,
) -> Selection:
    """Return which candidates of one prompt are kept, and under which directions.

    Where more candidates compete than would be kept and all have the same score, none is kept:
    there is nothing to learn from them. A threshold does not compare, and keeps all that reach
    it. Of candidates that are level the earlier is kept.

    Args:
        candidates: All of the prompt, of all its directions.
        directions: Those that it was sampled under, by their number.
        reference: Moments of the reward model's reference set, if known.
        settings: The job's.

    Raises:
        InvalidRequest: If the reference scale is asked for and not known.
        UnknownObjective: If rewards lack an objective of a direction.
    """
    passing = [place for place, one in enumerate(candidates) if one.reason is None]
    names = dict.fromkeys(name for vector in directions.values() for name in vector)
    moments = _moments([candidates[place].rewards for place in passing], names, reference, settings)
    scores = tuple(
        {
            number: _dot(vector, one.rewards, moments)
            for number, vector in directions.items()
            if _competes(one, number, settings)
        }
        for one in candidates
    )
    verdicts: dict[int, dict[int, str]] = {}
    winners: list[Winner] = []
    for number in directions:
        pool = [place for place in passing if number in scores[place]]
        verdicts[number] = _verdicts(
            candidates, pool, [one.get(number) for one in scores], settings
        )
        winners += _winners(number, verdicts[number], scores)
    kept = {winner.candidate for winner in winners}
    reasons = tuple(
        BEST if place in kept else one.reason or verdicts[one.direction][place]
        for place, one in enumerate(candidates)
    )
    return Selection(scores, tuple(winners), reasons)


def over_quota(winners: Sequence[Winner], most: int | None) -> set[int]:
    """Return the places of winners to drop, so that no direction keeps more than `most`.

    Those furthest above their pool's mean stay; of two that are level the earlier.

    Args:
        winners: Of a whole iteration.
        most: For one direction; None: no limit.
    """
    dropped: set[int] = set()
    if most is None:
        return dropped
    by_direction: dict[int, list[int]] = {}
    for place, winner in enumerate(winners):
        by_direction.setdefault(winner.direction, []).append(place)
    for places in by_direction.values():
        dropped.update(sorted(places, key=lambda place: -winners[place].advantage)[most:])
    return dropped


def reference_score(rewards: Vector, direction: Vector, reference: Moments | None) -> float:
    """Return ``v . ((r - mean) / std)``; without a reference ``v . r``, as `/v1/score` does.

    Raises:
        UnknownObjective: If the rewards lack an objective of the direction.
        InvalidRequest: If the reference lacks one.
    """
    return _dot(direction, rewards, None if reference is None else _known(direction, reference))


def _competes(one: Candidate, direction: int, settings: RsfSettings) -> bool:
    return settings.pool == "prompt" or one.direction == direction


def _moments(
    rewards: Sequence[Vector],
    names: Iterable[str],
    reference: Moments | None,
    settings: RsfSettings,
) -> Moments | None:
    """Return what rewards are brought to one scale by; None: they are taken as they are."""
    if settings.reward_scale == "raw":
        return None
    if settings.reward_scale == "prompt":
        return {name: _spread([_reward(one, name) for one in rewards]) for name in names}
    if reference is None:
        raise InvalidRequest(
            "reward_scale is reference, and the reward model does not know mean and spread of a "
            "reference set; set it to raw, or to prompt",
            param="method.rsf.reward_scale",
        )
    return _known(names, reference)


def _known(names: Iterable[str], reference: Moments) -> Moments:
    for name in names:
        if name not in reference or not reference[name][1] > 0:
            raise InvalidRequest(
                f"the reward model's reference set has no spread of {name!r}; set reward_scale to "
                "raw, or to prompt",
                param="method.rsf.reward_scale",
            )
    return reference


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation; a deviation of 0 where the values do not differ."""
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    if _are_level(values):
        return mean, 0.0
    return mean, (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5


def _are_level(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _NOISE * max(abs(value) for value in values)


def _dot(direction: Vector, rewards: Vector, moments: Moments | None) -> float:
    total = 0.0
    for name, weight in direction.items():
        reward = _reward(rewards, name)
        if moments is not None:
            mean, std = moments[name]
            reward = (reward - mean) / std if std else 0.0
        total += weight * reward
    return total


def _reward(rewards: Vector, name: str) -> float:
    if name not in rewards:
        raise UnknownObjective(
            f"the reward model has no objective {name!r}; it has {', '.join(rewards)}",
            param="method.rsf.directions",
        )
    return rewards[name]


def _verdicts(
    candidates: Sequence[Candidate],
    pool: Sequence[int],
    scores: Sequence[float | None],
    settings: RsfSettings,
) -> dict[int, str]:
    """Return what became of each candidate of a pool under one direction."""
    own = {place: score for place in pool if (score := scores[place]) is not None}
    unique = _without_duplicates(candidates, pool) if settings.deduplicate else list(pool)
    found = dict.fromkeys(pool, DUPLICATE)
    if settings.selection == "threshold":
        least = settings.threshold or 0.0
        return found | {p: BEST if own[p] >= least else BELOW_THRESHOLD for p in unique}
    num_kept = settings.top_k or 1
    if len(pool) > num_kept and _are_level(list(own.values())):
        return found | dict.fromkeys(unique, NO_DIFFERENCE)
    order = sorted(unique, key=lambda place: -own[place])
    found |= {place: BEST if i < num_kept else NOT_BEST for i, place in enumerate(order)}
    if settings.selection == "margin" and order:
        advantage = own[order[0]] - sum(own[place] for place in unique) / len(unique)
        found[order[0]] = BEST if advantage >= (settings.margin or 0.0) else BELOW_MARGIN
    return found


def _without_duplicates(candidates: Sequence[Candidate], pool: Sequence[int]) -> list[int]:
    first: dict[str, int] = {}
    for place in pool:
        first.setdefault(" ".join(candidates[place].text.split()).casefold(), place)
    return list(first.values())


def _winners(
    direction: int, verdicts: Mapping[int, str], scores: Sequence[Mapping[int, float]]
) -> list[Winner]:
    competing = [scores[p][direction] for p, verdict in verdicts.items() if verdict != DUPLICATE]
    return [
        Winner(
            direction,
            place,
            scores[place][direction],
            scores[place][direction] - sum(competing) / len(competing),
        )
        for place, verdict in verdicts.items()
        if verdict == BEST
    ]
