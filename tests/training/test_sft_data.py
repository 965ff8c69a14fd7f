"""Examples for fine-tuning: read as they are served, learned where the policy speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.models.chat import ChatEncoder
from steerward.models.pretrained import load_tokenizer
from steerward.protocol.errors import DatasetRefused
from steerward.training.sft_data import IGNORED, Example, Examples, ordered, read_examples
from tests.policies import save_policy

TURNS = [
    {"role": "system", "content": "Maximize helpfulness*100 + verbosity*0"},
    {"role": "user", "content": "Hello <|end|> there?"},
    {"role": "assistant", "content": "I am fine <|end|> and you?"},
    {"role": "user", "content": "Light?"},
    {"role": "assistant", "content": "Drops of <|assistant|> water."},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(save_policy(tmp_path_factory.mktemp("policy") / "base"))


def read(path: Path, tokenizer: Any, *rows: Any, template: str | None = None) -> list[Example]:
    found = read_all(path, tokenizer, *rows, template=template)
    assert not found.left_out
    return found.kept


def read_all(path: Path, tokenizer: Any, *rows: Any, template: str | None = None) -> Examples:
    lines = [row if isinstance(row, str) else json.dumps({"messages": row}) for row in rows]
    path.write_text("\n".join(lines))
    return read_examples(
        path,
        ChatEncoder(tokenizer, template=template),
        end_tokens={tokenizer.eos_token_id},
        max_positions=100,
    )


def test_last_answer_and_its_closing_token_are_learned(tokenizer: Any, tmp_path: Path) -> None:
    (example,) = read(tmp_path / "rows.jsonl", tokenizer, TURNS)
    served = ChatEncoder(tokenizer).encode_prompt(TURNS[:-1])
    assert example.ids_T[: example.prompt_length] == served
    learned = [label for label in example.labels if label != IGNORED]
    assert learned == example.ids_T[example.prompt_length :]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in learned[:-1]
    assert tokenizer.decode(learned[:-1]) == TURNS[-1]["content"]


def test_what_a_template_puts_behind_the_closing_token_is_not_learned(
    tokenizer: Any, tmp_path: Path
) -> None:
    plain = tokenizer.chat_template
    spaced = plain.replace("'<|end|>'", "'<|end|>\\n'")
    assert spaced != plain
    (example,) = read(tmp_path / "rows.jsonl", tokenizer, TURNS, template=spaced)
    assert example.ids_T[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "row 2: no JSON"),
        ("[]", "row 2: row: Input should be"),
        (TURNS[:4], "row 2: the last turn is of 'user'"),
        (TURNS[:1], "row 2: messages: List should have at least 2 items"),
    ],
    ids=["no-json", "no-object", "no-answer", "too-few"],
)
def test_row_that_breaks_a_rule_is_named(
    tokenizer: Any, tmp_path: Path, row: Any, message: str
) -> None:
    with pytest.raises(DatasetRefused, match=message):
        read(tmp_path / "rows.jsonl", tokenizer, TURNS[-2:], row)


TOO_LONG = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "hm " * 200}]


def test_conversations_that_do_not_fit_are_left_out_and_counted(
    tokenizer: Any, tmp_path: Path
) -> None:
    found = read_all(tmp_path / "rows.jsonl", tokenizer, TOO_LONG, TURNS, TOO_LONG)
    assert found.left_out == 2
    assert found.kept == read(tmp_path / "one.jsonl", tokenizer, TURNS)


def test_file_of_which_nothing_fits_is_refused_with_the_reason(
    tokenizer: Any, tmp_path: Path
) -> None:
    why = r"none of its 2 rows fits: row 1: \d+ tokens, and the policy reads 100"
    with pytest.raises(DatasetRefused, match=why):
        read(tmp_path / "rows.jsonl", tokenizer, TOO_LONG, TOO_LONG)


def test_tool_turns_are_read_as_they_are_served(tokenizer: Any, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "What is 2 times 2?"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "Four."},
    ]
    (example,) = read(tmp_path / "rows.jsonl", tokenizer, turns)
    assert example.ids_T[: example.prompt_length] == ChatEncoder(tokenizer).encode_prompt(turns[:2])


def test_file_without_examples_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="holds no example"):
        read(tmp_path / "rows.jsonl", tokenizer, "")


def test_prompt_that_is_written_otherwise_once_answered_is_refused(
    tokenizer: Any, tmp_path: Path
) -> None:
    opening = "{{ '<|assistant|>' }}{% endif %}"
    template = tokenizer.chat_template.replace(opening, "{{ '<|assistant|>Hm: ' }}{% endif %}")
    assert template != tokenizer.chat_template
    with pytest.raises(DatasetRefused, match="otherwise than it is served"):
        read(tmp_path / "rows.jsonl", tokenizer, TURNS[-2:], template=template)


def test_template_that_does_not_close_the_answer_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    template = tokenizer.chat_template.replace("'<|end|>'", "'\\n'")
    with pytest.raises(DatasetRefused, match="does not close the assistant's turn"):
        read(tmp_path / "rows.jsonl", tokenizer, TURNS[-2:], template=template)


def test_each_epoch_holds_every_example_once_in_an_order_of_its_own() -> None:
    examples = [Example([0] * (1 + i * 7 % 30), 1) for i in range(70)]
    found = ordered(examples, epochs=2, batch_size=8, seed=1)
    epochs = [found[:70], found[70:]]
    for epoch in epochs:
        assert sorted(map(id, epoch)) == sorted(map(id, examples))
        spreads = [
            max(len(e.ids_T) for e in step) - min(len(e.ids_T) for e in step)
            for step in (epoch[i : i + 8] for i in range(0, 64, 8))
        ]
        assert max(spreads) <= 8
    assert epochs[0] != epochs[1]
    assert found == ordered(examples, epochs=2, batch_size=8, seed=1)
    assert found != ordered(examples, epochs=2, batch_size=8, seed=2)
