"""Labelled rows: which are read, what is held out, and what they are padded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from steerward.models.chat import ChatEncoder
from steerward.models.pretrained import load_tokenizer
from steerward.protocol.errors import DatasetRefused
from steerward.training.align.multilabel.data import (
    LabelledExamples,
    collate,
    encode_labelled,
    label_names,
    padding_token,
    read_labelled,
)
from tests.policies import save_policy
from tests.training.conftest import write_rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ChatEncoder:
    return ChatEncoder(load_tokenizer(save_policy(tmp_path_factory.mktemp("policy") / "start")))


def rows_of(count: int, labels: dict[str, float | None]) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "response": "yes", "labels": labels} for i in range(count)]


def test_prompt_and_messages_are_two_ways_to_say_one_thing(tmp_path: Path) -> None:
    labels = {"labels": {"a": 1.0}, "response": "b"}
    turns = [{"role": "user", "content": "q"}]
    path = write_rows(
        tmp_path / "rows.jsonl",
        [{"prompt": "q", **labels}, {"messages": turns, **labels}, {"prompt": turns, **labels}],
    )
    assert [row.context for row in read_labelled([path])] == [turns, turns, turns]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": []}, "row 0: .*either prompt or messages"),
        ({"labels": {}}, "row 0: .*labels"),
        ({"labels": {"a": "high"}}, "row 0: .*labels"),
        ({"labels": {"a": float("nan")}}, "row 0: .*labels"),
        ({"split": "test"}, "rows.jsonl: no rows of split train"),
    ],
)
def test_row_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{**rows_of(1, {"a": 1.0})[0], **changes}])
    with pytest.raises(DatasetRefused, match=message):
        read_labelled([path])


def test_labels_are_those_that_are_chosen_or_all(tmp_path: Path) -> None:
    rows = read_labelled([write_rows(tmp_path / "r.jsonl", rows_of(2, {"b": 1.0, "a": None}))])
    assert label_names(rows, []) == ["a", "b"]
    assert label_names(rows, ["b"]) == ["b"]
    with pytest.raises(DatasetRefused, match="no row has c; the rows have a, b"):
        label_names(rows, ["b", "c"])
    with pytest.raises(DatasetRefused, match="a name repeats"):
        label_names(rows, ["b", "b"])


def test_all_rows_of_a_prompt_are_on_one_side(tmp_path: Path, encoder: ChatEncoder) -> None:
    rows = [row for row in rows_of(30, {"a": 1.0}) for _ in range(3)]
    found = read_labelled([write_rows(tmp_path / "r.jsonl", rows)])
    train, held_out = encode_labelled(found, ["a"], encoder, max_tokens=64, validation=(0.3, 0))
    assert len(train) + len(held_out) == 90
    assert len(held_out) % 3 == 0
    assert not {tuple(ids) for ids in train.ids} & {tuple(ids) for ids in held_out.ids}


def test_long_rows_and_those_without_labels_are_counted(
    tmp_path: Path, encoder: ChatEncoder
) -> None:
    rows = rows_of(40, {"a": 1.0, "b": None}) + rows_of(10, {"b": 2.0, "a": None})
    for i in range(3):
        rows[i]["response"] = "word " * 200
    found = read_labelled([write_rows(tmp_path / "r.jsonl", rows)])
    parts = encode_labelled(found, ["a"], encoder, max_tokens=64, validation=(0.3, 0))
    assert sum(len(part) for part in parts) == 37
    assert sum(part.left_out for part in parts) == 13


def test_label_that_no_row_teaches_is_refused(tmp_path: Path, encoder: ChatEncoder) -> None:
    rows = read_labelled([write_rows(tmp_path / "r.jsonl", rows_of(9, {"a": 1.0, "b": None}))])
    with pytest.raises(DatasetRefused, match="none has the label b"):
        encode_labelled(rows, ["a", "b"], encoder, max_tokens=64, validation=(0.3, 0))


def test_padding_is_never_what_a_conversation_ends_in(encoder: ChatEncoder) -> None:
    tokenizer = encoder.tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    ids = encoder.encode([{"role": "user", "content": "q"}], ["a"])[0].ids
    assert ids[-1] == tokenizer.eos_token_id
    examples = LabelledExamples([ids], torch.zeros(1, 1))
    padding = padding_token(tokenizer, examples)
    assert padding != ids[-1]
    batch = collate([examples[0], {**examples[0], "input_ids": ids[:2]}], padding=padding)
    assert batch["input_ids"][1].tolist() == ids[:2] + [padding] * (len(ids) - 2)
    assert batch["attention_mask"].sum(dim=-1).tolist() == [len(ids), 2]
