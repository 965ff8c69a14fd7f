"""What a training step of the backbone sees: pairs and rated responses, drawn by source.

Examples are encoded as they are served, template and positions included, and packed without
padding; candidates of one prompt share its tokens.

Axis legend: N responses, P pairs, R ratings.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from steerward.models.chat import ChatEncoder, EncodedConversation
from steerward.models.packing import Group, PackedBatch, group_conversations
from steerward.models.plan import pack
from steerward.training.config import BackboneConfig
from steerward.training.data.labels import Objectives, label_matrix, objectives_of_categories
from steerward.training.data.rows import PreferencePair, RatedResponse, held_out

# Ratings of one prompt that differ by less, in standard deviations, are no comparison.
_LEAST_GAP = 0.3


@dataclass(frozen=True, slots=True)
class Rating:
    """A standardised rating of one response."""

    rater: int
    objective: int
    value: float


@dataclass(frozen=True, slots=True)
class _Pair:
    source: str
    conversations: list[EncodedConversation]
    objectives: list[int]
    is_held_out: bool


@dataclass(frozen=True, slots=True)
class _Rated:
    source: str
    prompt: str
    conversation: EncodedConversation
    ratings: list[Rating]
    is_held_out: bool


Key = tuple[str, tuple[int, ...]]
"""What a step asks for: ``("pair", (i,))`` or ``("rated", (i, j, ...))`` of one prompt."""


class Mixture(Dataset[Any]):
    """Encoded training rows.

    Args:
        chat: Encoder of the backbone.
        ratings: Rated responses.
        pairs: Preference pairs.
        objectives: What the ratings and categories are about.
        max_tokens: Rows over it are left out.
        validation_share: Share of the prompts that is held out.
        seed: Salt of that fold.
    """

    def __init__(
        self,
        chat: ChatEncoder,
        ratings: Sequence[RatedResponse],
        pairs: Sequence[PreferencePair],
        objectives: Objectives,
        *,
        max_tokens: int,
        validation_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._categories = objectives_of_categories(objectives)
        self.raters, standardised = _standardise(ratings, objectives)
        self.rated: list[_Rated] = []
        self.pairs: list[_Pair] = []
        held_out_ratings, held_out_pairs = (
            held_out(rows, share=validation_share, seed=seed) for rows in (ratings, pairs)
        )
        for row, of_row, out in zip(ratings, standardised, held_out_ratings, strict=True):
            (conversation,) = chat.encode(row.context, [row.response])
            if of_row and len(conversation.ids) <= max_tokens:
                self.rated.append(_Rated(row.source, row.prompt_key, conversation, of_row, out))
        for pair, out in zip(pairs, held_out_pairs, strict=True):
            both = chat.encode(pair.context, [pair.chosen, pair.rejected])
            if max(len(conversation.ids) for conversation in both) <= max_tokens:
                about = self._categories.get(pair.category or "", [])
                self.pairs.append(_Pair(pair.source, both, about, out))
        self.left_out = len(ratings) + len(pairs) - len(self.rated) - len(self.pairs)

    def __getitem__(self, key: Key) -> Key:
        """Return the key itself: a step is put together from all its keys at once."""
        return key

    def collate(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Return the tensors of a step."""
        step = _Step()
        for kind, indices in keys:
            if kind == "pair":
                step.add_pair(self.pairs[indices[0]])
            else:
                step.add_rated([self.rated[i] for i in indices])
        return step.tensors()


class _Step:
    """Collects the examples of a step."""

    def __init__(self) -> None:
        self._groups: list[Group] = []
        self._responses = 0
        self._pairs: list[tuple[int, int]] = []
        self._compared: dict[str, list[tuple[int, int, int]]] = {"category": [], "within": []}
        self._ratings: list[tuple[int, Rating]] = []

    def add_pair(self, pair: _Pair) -> None:
        chosen = self._add(pair.conversations)
        self._pairs.append((chosen, chosen + 1))
        for objective in pair.objectives:
            self._compared["category"].append((chosen, chosen + 1, objective))

    def add_rated(self, rated: Sequence[_Rated]) -> None:
        first = self._add([one.conversation for one in rated])
        for n, one in enumerate(rated):
            self._ratings.extend((first + n, rating) for rating in one.ratings)
        for (a, one), (b, other) in combinations(enumerate(rated), 2):
            for mine in one.ratings:
                for theirs in other.ratings:
                    if mine.rater != theirs.rater or mine.objective != theirs.objective:
                        continue
                    if abs(mine.value - theirs.value) < _LEAST_GAP:
                        continue
                    high, low = (a, b) if mine.value > theirs.value else (b, a)
                    self._compared["within"].append((first + high, first + low, mine.objective))

    def tensors(self) -> dict[str, Any]:
        pairs = _columns(self._pairs, 2)
        category, within = (_columns(self._compared[k], 3) for k in ("category", "within"))
        ratings = [(n, r.objective, r.rater) for n, r in self._ratings]
        return {
            "packed": pack(self._groups),
            "pairs": pairs,
            "category": category,
            "within": within,
            "ratings": _columns(ratings, 3),
            "labels": torch.tensor([rating.value for _, rating in self._ratings]),
        }

    def _add(self, conversations: Sequence[EncodedConversation]) -> int:
        """Add conversations of one prompt; return the index of the first response."""
        first = self._responses
        self._groups.extend(group_conversations(conversations))
        self._responses += len(conversations)
        return first


def _columns(rows: Sequence[tuple[int, ...]], count: int) -> Tensor:
    """Return rows of indices as ``count`` rows of columns."""
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, count).T


class StepSampler(Sampler[list[Key]]):
    """Draws the keys of every step: sources by the square root of their size, then rows in turn.

    Args:
        mixture: What to draw from.
        config: How much of each kind.
        rank: Of this process.
        processes: That share a step.
        steps: How many; those of the configuration by default.
        from_held_out: Draw from the held-out rows instead of the others.
    """

    def __init__(
        self,
        mixture: Mixture,
        config: BackboneConfig,
        *,
        rank: int,
        processes: int,
        steps: int | None = None,
        from_held_out: bool = False,
    ) -> None:
        self._seed = config.seed * 1009 + rank
        self._num_pairs = config.pairs_per_step // processes
        self._num_rated = config.rated_per_step // processes
        self._rated_per_prompt = config.rated_per_prompt
        self._steps = config.steps if steps is None else steps
        self._pairs, self._rated = _units(mixture, from_held_out=from_held_out)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw, so that steps would hold nothing."""
        return not (self._pairs and self._num_pairs) and not (self._rated and self._num_rated)

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[Key]]:
        rng = random.Random(self._seed)
        pairs, rated = _Sources(rng, self._pairs), _Sources(rng, self._rated)
        for _ in range(self._steps):
            keys: list[Key] = []
            if pairs:
                keys += [("pair", (rng.choice(pairs.draw()),)) for _ in range(self._num_pairs)]
            missing = self._num_rated if rated else 0
            while missing > 0:
                prompt = rated.draw()
                count = min(len(prompt), self._rated_per_prompt, missing)
                keys.append(("rated", tuple(rng.sample(prompt, count))))
                missing -= count
            yield keys


_Units = Mapping[str, list[list[int]]]
"""Indices of rows by source, those of one prompt together."""


def _units(mixture: Mixture, *, from_held_out: bool) -> tuple[_Units, _Units]:
    """Return what is drawn in one go: single pairs, and the rated responses of a prompt."""
    pairs: dict[str, list[list[int]]] = defaultdict(list)
    for i, pair in enumerate(mixture.pairs):
        if pair.is_held_out == from_held_out:
            pairs[pair.source].append([i])
    prompts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, one in enumerate(mixture.rated):
        if one.is_held_out == from_held_out:
            prompts[one.source, one.prompt].append(i)
    rated: dict[str, list[list[int]]] = defaultdict(list)
    for (source, _), indices in prompts.items():
        rated[source].append(indices)
    return pairs, rated


class _Sources:
    """Units by source; each source is gone through in a new random order before it repeats."""

    def __init__(self, rng: random.Random, units: _Units) -> None:
        self._rng = rng
        self._units = {source: units[source] for source in sorted(units)}
        self._left: dict[str, list[list[int]]] = {source: [] for source in self._units}
        self._weights = [sum(map(len, rows)) ** 0.5 for rows in self._units.values()]

    def __bool__(self) -> bool:
        return bool(self._units)

    def draw(self) -> list[int]:
        (source,) = self._rng.choices(list(self._units), self._weights)
        if not self._left[source]:
            self._left[source] = self._rng.sample(self._units[source], len(self._units[source]))
        return self._left[source].pop()


def _standardise(
    rows: Sequence[RatedResponse], objectives: Objectives
) -> tuple[list[tuple[str, int]], list[list[Rating]]]:
    """Return the raters (source, objective), and each row's ratings standardised within them."""
    labels_NK = label_matrix(rows, objectives)
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row, labels_K in zip(rows, labels_NK.tolist(), strict=True):
        for k, label in enumerate(labels_K):
            if label == label:  # not NaN
                values[row.source, k].append(label)
    raters = sorted(values)
    moments = {
        rater: (sum(found) / len(found), max(torch.tensor(found).std(correction=0).item(), 1e-3))
        for rater, found in values.items()
    }
    numbers = {rater: i for i, rater in enumerate(raters)}
    standardised: list[list[Rating]] = []
    for row, labels_K in zip(rows, labels_NK.tolist(), strict=True):
        of_row: list[Rating] = []
        for k, label in enumerate(labels_K):
            if label == label:
                mean, spread = moments[row.source, k]
                of_row.append(Rating(numbers[row.source, k], k, (label - mean) / spread))
        standardised.append(of_row)
    return raters, standardised


def packed_of(step: Mapping[str, Any]) -> PackedBatch:
    """Return the packed batch of a step."""
    packed = step["packed"]
    assert isinstance(packed, PackedBatch)
    return packed
