from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from recipes.pocket_policy.vocabulary import train_tokenizer
from steerward.policy.local.text import TextStream, TokenTexts

TOKENIZER: PreTrainedTokenizerFast = train_tokenizer(["hello world, hello there"], size=280)


def stream(text: str, stop: list[str]) -> tuple[list[str], bool]:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    texts = TextStream(TOKENIZER.backend_tokenizer, prompt=(), stop=stop)
    parts: list[str] = []
    for token in ids:
        parts.append(texts.push(token))
        if texts.has_stopped:
            return parts, True
    parts.append(texts.finish())
    return parts, texts.has_stopped


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(deadline=None)
def test_parts_are_the_text(text: str) -> None:
    parts, has_stopped = stream(text, [])
    assert "".join(parts) == text
    assert not has_stopped


@given(
    st.text("ab<|é 🌈", max_size=40),
    st.lists(st.text("ab<|é 🌈", min_size=1, max_size=4), min_size=1, max_size=4),
)
@settings(deadline=None)
def test_text_ends_before_the_first_stop_text(text: str, stop: list[str]) -> None:
    places = [text.find(one) for one in stop if one in text]
    parts, has_stopped = stream(text, stop)
    assert has_stopped == bool(places)
    if not has_stopped:
        assert "".join(parts) == text
    else:
        # Two stop texts may come complete with one token; the one that begins first counts.
        assert text.startswith("".join(parts))
        assert not any(one in "".join(parts) for one in stop)


def test_no_part_holds_half_a_character() -> None:
    parts, _ = stream("🌈 é 漢", [])
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts)
    assert "" in parts


def test_what_may_become_a_stop_text_waits() -> None:
    texts = TextStream(TOKENIZER.backend_tokenizer, prompt=(), stop=["there"])
    given = [
        texts.push(token) for token in TOKENIZER("the th", add_special_tokens=False)["input_ids"]
    ]
    assert "".join(given) == "the "
    assert texts.finish() == "th"


def test_a_prompt_that_ends_in_half_a_character_is_not_repeated() -> None:
    prompt = TOKENIZER("hello \ufffd", add_special_tokens=False)["input_ids"]
    texts = TextStream(TOKENIZER.backend_tokenizer, prompt=prompt[-5:], stop=())
    ids = TOKENIZER(" there", add_special_tokens=False)["input_ids"]
    assert "".join(map(texts.push, ids)) + texts.finish() == " there"


def test_bytes_of_tokens_join_to_the_text() -> None:
    texts = TokenTexts(TOKENIZER)
    ids = TOKENIZER("hello 🌈 é", add_special_tokens=False)["input_ids"]
    assert b"".join(texts.of(token)[1] for token in ids).decode() == "hello 🌈 é"


@pytest.mark.parametrize("text", ["<|end|>", "<|user|>"])
def test_special_tokens_are_no_text(text: str) -> None:
    texts = TextStream(TOKENIZER.backend_tokenizer, prompt=(), stop=())
    token = TOKENIZER.convert_tokens_to_ids(text)
    assert isinstance(token, int)
    assert texts.push(token) == ""
