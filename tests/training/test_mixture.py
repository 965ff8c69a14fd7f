"""Steps hold what was asked for, each source has its share, and a run can be repeated."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from steerward.models.chat import ChatEncoder
from steerward.models.checkpoint import load_backbone
from steerward.training.config import BackboneConfig
from steerward.training.data.labels import LabelSource
from steerward.training.data.rows import PreferencePair, RatedResponse, held_out, load_rows
from steerward.training.mixture import Mixture, StepSampler, packed_of

OBJECTIVES = {
    "helpfulness": [
        LabelSource(source="first", attribute="quality", low=1, high=5),
        LabelSource(source="second", attribute="quality", low=1, high=5),
        LabelSource(category="quality"),
    ],
    "verbosity": [LabelSource(derived="log_characters", low=2, high=6)],
}


def config(**options: Any) -> BackboneConfig:
    paths = {"objectives": Path("unused"), "out": Path("unused")}
    return BackboneConfig.model_validate({"start": "unused", **paths, **options})


Rows = tuple[ChatEncoder, list[RatedResponse], list[PreferencePair]]


def training_rows(backbone: Path, ratings: Path, pairs: Path) -> Rows:
    _, chat = load_backbone(backbone, device="cpu")
    return (
        chat,
        load_rows([ratings], RatedResponse, split="train"),
        load_rows([pairs], PreferencePair, split="train"),
    )


@pytest.fixture(scope="module")
def mixture(tiny_backbone: Path, rating_file: Path, pair_file: Path) -> Mixture:
    rows = training_rows(tiny_backbone, rating_file, pair_file)
    return Mixture(*rows, OBJECTIVES, max_tokens=256)


def test_ratings_are_standardised_within_source_and_objective(mixture: Mixture) -> None:
    assert mixture.raters == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]
    for rater in range(4):
        values = torch.tensor(
            [r.value for one in mixture.rated for r in one.ratings if r.rater == rater]
        )
        assert float(values.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(values.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_step_has_the_pairs_and_responses_asked_for(mixture: Mixture) -> None:
    settings = config(pairs_per_step=3, rated_per_step=5, rated_per_prompt=2, steps=4)
    for keys in StepSampler(mixture, settings, rank=0, processes=1):
        step = mixture.collate([mixture[key] for key in keys])
        batch = packed_of(step)
        assert batch.num_candidates == 3 * 2 + 5
        assert step["pairs"].shape == (2, 3)
        assert step["category"].shape == (3, 3)
        assert step["labels"].shape[0] == step["ratings"].shape[1]
        assert int(step["ratings"][0].max()) < batch.num_candidates
        # The preferred response stands before the other one, in the group of one prompt.
        for chosen, rejected in step["pairs"].T.tolist():
            assert rejected == chosen + 1
            assert batch.prompt_index_N[chosen] == batch.prompt_index_N[rejected]
        # What is compared within a prompt was rated for the same objective, higher first.
        rated = {
            (n, k): value
            for (n, k, _), value in zip(
                step["ratings"].T.tolist(), step["labels"].tolist(), strict=True
            )
        }
        for higher, lower, objective in step["within"].T.tolist():
            assert rated[higher, objective] > rated[lower, objective]
            assert batch.prompt_index_N[higher] == batch.prompt_index_N[lower]


def test_sources_are_drawn_by_the_root_of_their_size(mixture: Mixture) -> None:
    settings = config(rated_per_step=8, pairs_per_step=0, rated_per_prompt=1, steps=400)
    sizes = Counter(one.source for one in mixture.rated)
    drawn: Counter[str] = Counter()
    for keys in StepSampler(mixture, settings, rank=0, processes=1):
        drawn.update(mixture.rated[i].source for _, indices in keys for i in indices)
    expected = (sizes["second"] / sizes["first"]) ** 0.5
    assert drawn["second"] / drawn["first"] == pytest.approx(expected, rel=0.15)


def test_processes_share_a_step_and_draw_their_own_rows(mixture: Mixture) -> None:
    settings = config(pairs_per_step=4, rated_per_step=8, steps=10)

    def steps(rank: int) -> list[Any]:
        return list(StepSampler(mixture, settings, rank=rank, processes=2))

    assert steps(0) == steps(0)
    assert steps(0) != steps(1)
    for keys in islice(steps(0), 3):
        assert sum(kind == "pair" for kind, _ in keys) == 2
        assert sum(len(indices) for kind, indices in keys if kind == "rated") == 4


def test_long_rows_are_left_out_whole(
    tiny_backbone: Path, rating_file: Path, pair_file: Path
) -> None:
    rows = training_rows(tiny_backbone, rating_file, pair_file)
    short = Mixture(*rows, OBJECTIVES, max_tokens=120)
    assert short.left_out > 0
    assert all(len(one.conversation.ids) <= 120 for one in short.rated)
    assert len(short.rated) + len(short.pairs) + short.left_out == len(rows[1]) + len(rows[2])


def test_held_out_prompts_are_drawn_only_where_they_are_asked_for(
    tiny_backbone: Path, rating_file: Path, pair_file: Path
) -> None:
    rows = training_rows(tiny_backbone, rating_file, pair_file)
    mixture = Mixture(*rows, OBJECTIVES, max_tokens=256, validation_share=0.3, seed=5)
    # The fold of heads and gate, given the same share and seed.
    expected = held_out(rows[2], share=0.3, seed=5)
    assert [pair.is_held_out for pair in mixture.pairs] == expected
    assert 0 < sum(expected) < len(expected)
    settings = config(pairs_per_step=4, rated_per_step=8)
    for from_held_out in (False, True):
        sampler = StepSampler(
            mixture, settings, rank=0, processes=1, steps=30, from_held_out=from_held_out
        )
        assert len(sampler) == 30
        drawn = [key for keys in sampler for key in keys]
        of_pairs = {mixture.pairs[i].is_held_out for kind, (i, *_) in drawn if kind == "pair"}
        of_rated = {
            mixture.rated[i].is_held_out for kind, found in drawn if kind == "rated" for i in found
        }
        assert of_pairs == of_rated == {from_held_out}
