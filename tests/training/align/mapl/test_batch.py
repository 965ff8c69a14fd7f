"""Rows as token ids and batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.mapl.batch import (
    SIDES,
    Collator,
    check_columns,
    conversations_of,
    encode_rows,
)
from steerward.training.align.mapl.loss import INTER, INTRA, PREFERENCE
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
    load_tokenizer,
    reward_encoder,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base")


def test_rows_have_their_part_direction_and_conversations(base: Path) -> None:
    dataset = encode_rows(ROWS, reward_encoder(base)).dataset
    assert dataset["part"][:] == [INTER, PREFERENCE, INTRA, INTER, INTRA, PREFERENCE]
    assert dataset["direction"][:] == [1, 1, 1, -1, 1, 1]
    tokenizer = load_tokenizer(base)
    for row, columns in zip(ROWS, dataset, strict=True):
        found = [tokenizer.decode(columns[f"{side}_ids"]) for side in SIDES]  # pyright: ignore
        expected = [
            tokenizer.apply_chat_template(
                [*prompt, {"role": "assistant", "content": response}], tokenize=False
            )
            for prompt, response in conversations_of(row)
        ]
        assert found == expected + [""] * (4 - len(expected))


def test_inter_rows_have_four_corners() -> None:
    row = INTER_ROWS[0]
    assert conversations_of(row) == [
        (row.prompt_with, row.chosen),
        (row.prompt_with, row.rejected),
        (row.prompt, row.chosen),
        (row.prompt, row.rejected),
    ]


def test_batch_is_chosen_then_rejected_with_inter_rows_behind_each(base: Path) -> None:
    rows: Any = list(encode_rows(ROWS, reward_encoder(base)).dataset)
    batch = Collator(0)(rows)
    order = [
        *((row, "chosen_ids") for row in rows),
        *((rows[place], "without_chosen_ids") for place in (0, 3)),
        *((row, "rejected_ids") for row in rows),
        *((rows[place], "without_rejected_ids") for place in (0, 3)),
    ]
    assert next(iter(batch)) == "parts"
    assert len(batch["input_ids"]) == len(order)
    for ids, mask, (row, name) in zip(
        batch["input_ids"], batch["attention_mask"], order, strict=True
    ):
        assert ids[mask.bool()].tolist() == row[name]
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


def test_long_rows_are_left_out_and_counted_and_never_cut(base: Path) -> None:
    whole = encode_rows(ROWS, reward_encoder(base))
    longest = max(len(ids) for side in SIDES for ids in whole.dataset[f"{side}_ids"])
    fewer = encode_rows(ROWS, reward_encoder(base, max_tokens=longest - 1))
    assert (whole.left_out, fewer.left_out) == (0, 1)
    assert len(fewer.dataset) == len(ROWS) - 1
    with pytest.raises(DatasetRefused, match="none of 6 rows"):
        encode_rows(ROWS, reward_encoder(base, max_tokens=2))


def test_of_rows_that_belong_together_all_fit_or_none(base: Path) -> None:
    """One end of a pair alone would teach that it is good, whatever the prompt asks."""
    long = replace(INTRA_ROWS[1], response="Drops of water. " * 9)
    rows = [(INTRA_ROWS[0], long), PAIRS[0]]
    whole = encode_rows(rows, reward_encoder(base))
    assert (whole.left_out, whole.counts) == (0, {"preference": 1, "intra": 2, "inter": 0})
    longest = max(len(ids) for ids in whole.dataset["rejected_ids"])
    fewer = encode_rows(rows, reward_encoder(base, max_tokens=longest - 20))
    assert (fewer.left_out, fewer.counts) == (2, {"preference": 1, "intra": 0, "inter": 0})


def test_padding_that_ends_a_conversation_is_refused(base: Path) -> None:
    """transformers reads the last token that is not padding: it would be the one before."""
    dataset = encode_rows([*PAIRS, *INTRA_ROWS], reward_encoder(base)).dataset
    end = load_tokenizer(base).eos_token_id
    assert dataset[0]["chosen_ids"][-1] == end
    with pytest.raises(InvalidRequest, match="which is also padded with"):
        Collator(end)([dataset[0]])
    assert Collator(end, has_completions=True)([dataset[0]])["completion_mask"][0, -1] == 1


def test_missing_column_is_named() -> None:
    with pytest.raises(InvalidRequest, match="no column 'direction'"):
        check_columns(["part", "chosen_ids"])
