"""The markups that chat templates write, as far as texts are taken apart by them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from steerward.protocol.errors import InvalidRequest, brief
from steerward.protocol.items import Role

TemplateName = Literal[
    "llama3", "chatml", "gemma", "mistral", "zephyr", "pocket", "pocket-policy", "none"
]
"""Markups of joined texts; none says that texts have no markup."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class Markup:
    """How the turns of one family of templates begin and end."""

    name: TemplateName
    title: str
    """For people."""
    header: re.Pattern[str]
    """Opens a turn; the group is the role's name."""
    end: str
    """Closes a turn."""
    roles: Mapping[str, Role]
    leftovers: Sequence[str]
    """Tokens that decoding with special tokens leaves at either end: BOS, EOS, padding, and ends
    of turns that are there twice."""

    def begin(self, text: str) -> int:
        """Return where the first turn begins, behind leftovers and white space."""
        return start_behind(text, self.leftovers)

    def without_end(self, text: str) -> str:
        """Return a text without the leftovers at its end, and without the last turn's closing."""
        return text[: end_before(text, self.leftovers)]


def start_behind(text: str, tokens: Sequence[str]) -> int:
    """Return where a text begins behind any run of tokens and white space."""
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        token = next((token for token in tokens if text.startswith(token, position)), None)
        if token is None:
            return position
        position += len(token)


def end_before(text: str, tokens: Sequence[str]) -> int:
    """Return where a text ends before any run of tokens; white space before them is the text's."""
    end = position = len(text)
    while True:
        while position and text[position - 1].isspace():
            position -= 1
        token = next((token for token in tokens if text.endswith(token, 0, position)), None)
        if token is None:
            return end
        end = position = position - len(token)


MARKUPS: dict[TemplateName, Markup] = {
    markup.name: markup
    for markup in (
        Markup(
            "llama3",
            "Llama 3",
            re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n"),
            "<|eot_id|>",
            {**_ROLES, "ipython": "tool"},
            (
                *("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
                *("<|finetune_right_pad_id|>", "<|reserved_special_token_250|>", "<pad>", "[PAD]"),
            ),
        ),
        Markup(
            "chatml",
            "ChatML",
            re.compile(r"<\|im_start\|>(\w+)\n"),
            "<|im_end|>",
            _ROLES,
            ("<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<pad>", "<|pad|>", "[PAD]"),
        ),
        Markup(
            "gemma",
            "Gemma",
            re.compile(r"<start_of_turn>(\w+)\n"),
            "<end_of_turn>",
            {"user": "user", "model": "assistant", "system": "system"},
            ("<end_of_turn>", "<bos>", "<eos>", "<pad>"),
        ),
        Markup(
            "mistral",
            "Mistral",
            # Only to be recognised by: `reading` reads its turns.
            re.compile(r"\[(INST|SYSTEM_PROMPT)\]"),
            "</s>",
            {},
            ("</s>", "<s>", "<unk>", "<pad>", "[PAD]"),
        ),
        Markup(
            "zephyr",
            "Zephyr",
            re.compile(r"<\|(system|user|assistant)\|>\n"),
            "</s>",
            _ROLES,
            ("</s>", "<s>", "<unk>", "<pad>", "[PAD]"),
        ),
        Markup(
            "pocket-policy",
            "pocket-policy",
            # Its template trims, so that no turn begins with a line break as Zephyr's do.
            re.compile(r"<\|(system|user|assistant|tool)\|>"),
            "<|end|>",
            _ROLES,
            ("<|end|>", "<|begin|>", "<|pad|>"),
        ),
        Markup(
            "pocket",
            "pocket",
            re.compile(r"\[(SYSTEM|USER|ASSISTANT|TOOL)\]"),
            "[SEP]",
            {name.upper(): role for name, role in _ROLES.items()},
            ("[SEP]", "[CLS]", "[BOS]", "[EOS]", "[PAD]"),
        ),
    )
}

PLAIN_LEFTOVERS: tuple[str, ...] = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|endoftext|>", "<|im_end|>", "<end_of_turn>"),
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "[PAD]"),
)
"""Tokens that may stand at either end of a text without markup."""


def without_leftovers(answer: str, template: TemplateName | None) -> str:
    """Return an answer that stands by itself without what decoding left at its end."""
    if template in MARKUPS:
        return MARKUPS[template].without_end(answer)
    return answer[: end_before(answer, PLAIN_LEFTOVERS)]


def known_template(name: str | None) -> TemplateName | None:
    """Return the name of a template; None stays None.

    Raises:
        InvalidRequest: If there is none of this name.
    """
    known: tuple[str, ...] = get_args(TemplateName)
    if name is not None and name not in known:
        raise InvalidRequest(
            f"there is no template {brief(name)!r}; known: {', '.join(known)}", param="template"
        )
    return cast("TemplateName | None", name)
