"""Texts that a chat template rendered, taken apart again; the templates are the policies' own."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from steerward.clients._conversation import plain_answer, plain_prompt
from steerward.clients._markup import rendered_conversation, rendered_prompt, without_end
from steerward.protocol.errors import InvalidRequest

TURNS = [
    {"role": "user", "content": "One\n\nline?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And two?"},
]
RENDERED: dict[str, Any] = {
    "chatml": (
        "<|im_start|>user\nOne\n\nline?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nAnd two?<|im_end|>\n<|im_start|>assistant\n",
        "No\n.<|im_end|>\n",
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nOne\n\nline?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd two?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "No\n.<|eot_id|>",
    ),
    "gemma": (
        "<bos><start_of_turn>user\nOne\n\nline?<end_of_turn>\n<start_of_turn>model\nYes."
        "<end_of_turn>\n<start_of_turn>user\nAnd two?<end_of_turn>\n<start_of_turn>model\n",
        "No\n.<end_of_turn>\n<eos>",
    ),
    "mistral": ("<s>[INST] One\n\nline? [/INST] Yes.</s>[INST] And two? [/INST]", "No\n.</s>"),
}


@pytest.mark.parametrize("template", RENDERED)
def test_rendered_text_becomes_the_messages_it_came_from(template: Any) -> None:
    prompt, answer = RENDERED[template]
    assert rendered_prompt(prompt, template=template) == TURNS
    assert rendered_conversation(prompt + answer, template=template) == (TURNS, "No\n.")
    assert without_end(answer) == "No\n."


def test_what_transformers_renders_is_read_back() -> None:
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained("tests/golden/armorm")
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert rendered_prompt(text, template="llama3") == TURNS


@pytest.mark.parametrize("text", ["Fine.\n", "a < b", "end</s>\nNot.", ""])
def test_an_answer_without_end_tokens_is_left_as_it_is(text: str) -> None:
    assert without_end(text) == text


@pytest.mark.parametrize(
    ("text", "template", "match"),
    [
        ("<|im_start|>user\nHi<|im_end|>\n", None, "name the template"),
        ("Hi", "chatml", "does not start with a turn"),
        ("<|im_start|>user\nHi<|im_end|>\n", "vicuna", "unknown template"),
        (RENDERED["chatml"][0] + "<think>", "chatml", "beginning of an answer"),
        ("[INST] Hi", "mistral", r"no \[/INST\]"),
        ("Hi", "mistral", r"start with \[INST\]"),
    ],
)
def test_text_of_another_shape_is_refused(text: str, template: Any, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        rendered_prompt(text, template=template)


def test_conversation_without_an_answer_is_refused() -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n"
    with pytest.raises(InvalidRequest, match="does not end with an assistant turn"):
        rendered_conversation(text, template="chatml")


def test_parts_of_text_are_put_together() -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": ", you."}]
    assert plain_prompt(({"role": "user", "content": parts},)) == [
        {"role": "user", "content": "Hello, you."}
    ]
    assert plain_answer([{"role": "assistant", "content": parts}]) == "Hello, you."


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        (7, "of type int"),
        ({"role": "user", "content": "Hi"}, "of type dict"),
        ([], "no messages"),
        (["Hi"], r"prompt\[0\] is no message"),
        ([{"role": "user", "content": [{"type": "image"}]}], "not text alone"),
        ([{"role": "user", "content": None}], "not text alone"),
    ],
)
def test_prompt_of_another_shape_is_refused(prompt: object, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        plain_prompt(prompt)
