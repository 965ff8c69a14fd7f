"""What a reward model is right about, against rewards one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from steerward.protocol.errors import DatasetRefused, TrainingFailed
from steerward.training.align.mapl.batch import conversations_of
from steerward.training.align.mapl.evaluate import INTER, INTRA, ORIGINAL, HeldOutRows
from tests.policies import save_policy
from tests.training.align.mapl.samples import (
    INTER as INTER_ROWS,
)
from tests.training.align.mapl.samples import (
    INTRA as INTRA_ROWS,
)
from tests.training.align.mapl.samples import (
    PAIRS,
    ROWS,
    load_reward_model,
    load_tokenizer,
    reward_encoder,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base")


def _held_out(base: Path, rows: Any, **options: Any) -> HeldOutRows:
    encoder = reward_encoder(base, **options)
    padding = load_tokenizer(base).pad_token_id
    return HeldOutRows(rows, encoder, padding=padding, batch_size=3)


@torch.no_grad()
def _rewards(model: Any, base: Path, row: Any) -> list[float]:
    encoder = reward_encoder(base)
    found = (encoder.encode(conversation) for conversation in conversations_of(row))
    return [model(torch.tensor([one[0]])).logits.item() for one in found if one]


def test_rows_are_right_where_the_better_side_has_the_higher_reward(base: Path) -> None:
    model = load_reward_model(base)
    found = _held_out(base, ROWS).measure(model)
    expected: dict[str, list[float | None]] = {ORIGINAL: [], INTER: [], INTRA: []}
    for row in ROWS:
        rewards = _rewards(model, base, row)
        is_right = rewards[0] > rewards[1]
        if row in INTER_ROWS:
            is_right = is_right if row.direction == 1 else not is_right  # pyright: ignore
        column = INTER if row in INTER_ROWS else ORIGINAL if row in PAIRS else INTRA
        for name, values in expected.items():
            values.append(float(is_right) if name == column else None)
    assert found.right == expected
    assert len(found.characters) == len(ROWS)
    assert found.means().keys() == expected.keys()


def test_of_rows_that_belong_together_all_are_measured_or_none(base: Path) -> None:
    encoder = reward_encoder(base)
    sides = [conversations_of(row)[:2] for row in INTER_ROWS]
    lengths = [max(len((encoder.encode(one) or ([],))[0]) for one in two) for two in sides]
    assert lengths[0] != lengths[1]
    short = INTER_ROWS[lengths.index(min(lengths))]
    rows, options = [*PAIRS, *INTRA_ROWS, short], {"max_tokens": max(lengths) - 1}
    alone = _held_out(base, [*rows, *INTER_ROWS], **options)
    together = _held_out(base, [*rows, (*INTER_ROWS,)], **options)
    assert together.left_out == alone.left_out + 1


def test_characters_are_of_the_response_with_the_higher_reward(base: Path) -> None:
    model = load_reward_model(base)
    found = _held_out(base, ROWS).measure(model)
    chosen, rejected = _rewards(model, base, PAIRS[0])
    preferred = PAIRS[0].chosen if chosen > rejected else PAIRS[0].rejected
    assert found.characters[1] == len(preferred)


def test_equal_rewards_are_half_right(base: Path) -> None:
    model = load_reward_model(base)
    torch.nn.init.zeros_(model.score.weight)
    assert set(_held_out(base, ROWS).measure(model).means().values()) == {0.5}


def test_model_stays_in_the_mode_that_it_is_in(base: Path) -> None:
    model = load_reward_model(base).train()
    _held_out(base, ROWS).measure(model)
    assert model.training


def test_reward_that_is_no_number_ends_the_run(base: Path) -> None:
    model = load_reward_model(base)
    torch.nn.init.constant_(model.score.weight, float("nan"))
    with pytest.raises(TrainingFailed, match="is no number"):
        _held_out(base, ROWS).measure(model)


def test_column_without_rows_is_refused(base: Path) -> None:
    with pytest.raises(DatasetRefused, match=f"none of {INTER!r}"):
        _held_out(base, PAIRS)
