"""Takes apart text that went through a chat template, back into messages.

Some trainers hand over text only. The caller names the template, and text that shows the marks of
one is refused where none is named: what looks like a turn is never guessed. Special tokens that a
user typed cannot be told from the template's in such text; where a trainer has messages, its
adapter uses those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from steerward.clients._conversation import PlainPrompt
from steerward.protocol.errors import InvalidRequest

Template = Literal["chatml", "llama3", "gemma", "mistral"]

_END_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>"),
    *("<|endoftext|>", "<|end_of_text|>", "<eos>", "<|eom_id|>"),
)
_BEGIN_TOKENS = ("<|begin_of_text|>", "<bos>", "<s>")
_ROLES = {"model": "assistant", "ipython": "tool"}


@dataclass(frozen=True, slots=True)
class _Markup:
    header: re.Pattern[str]
    """In front of a turn; the first group is the role."""
    end: str


_MARKUPS: dict[str, _Markup] = {
    "chatml": _Markup(re.compile(r"<\|im_start\|>(\w+)\n"), "<|im_end|>"),
    "llama3": _Markup(
        re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n"), "<|eot_id|>"
    ),
    "gemma": _Markup(re.compile(r"<start_of_turn>(\w+)\n"), "<end_of_turn>"),
}
_MARKS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]")


def without_end(answer: str) -> str:
    """Return an answer without the tokens that end a turn or a text, at its end only."""
    bare = answer
    while True:
        shorter = bare.rstrip("\n")
        for token in _END_TOKENS:
            shorter = shorter.removesuffix(token)
        if shorter == bare.rstrip("\n"):
            # Line breaks between end tokens are the template's; others are the answer's own.
            return bare
        bare = shorter


def rendered_prompt(text: str, *, template: Template | None) -> PlainPrompt:
    """Return the prompt in text that ends where the answer starts.

    Args:
        text: As the trainer holds it.
        template: Which wrote it; None for plain text.

    Raises:
        InvalidRequest: If it does not follow the template, or has marks of one and none is named.
    """
    if template is None:
        return _unmarked(text)
    turns = _turns(text, template=template)
    if turns and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    if not turns or turns[-1]["role"] == "assistant":
        raise InvalidRequest(
            f"the prompt, read by the template {template}, ends with the beginning of an answer, "
            "or has no turn; a score is of a whole answer to a user turn",
            param="prompt",
        )
    return turns


def rendered_conversation(text: str, *, template: Template) -> tuple[PlainPrompt, str]:
    """Return the prompt and the answer of one rendered conversation.

    Raises:
        InvalidRequest: If it does not follow the template or does not end with an answer.
    """
    turns = _turns(text, template=template)
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise InvalidRequest(
            f"the text, read by the template {template}, does not end with an assistant turn after "
            "a user turn; render the whole conversation with the answer",
            param="text",
        )
    return turns[:-1], turns[-1]["content"]


def _unmarked(text: str) -> str:
    marks = [mark for mark in _MARKS if mark in text]
    if marks:
        raise InvalidRequest(
            f"the prompt has the mark {marks[0]} of a chat template; name the template that the "
            f"trainer applied, one of {', '.join([*_MARKUPS, 'mistral'])}, or hand over plain text",
            param="template",
        )
    return _without_begin(text)


def _without_begin(text: str) -> str:
    for token in _BEGIN_TOKENS:
        text = text.removeprefix(token)
    return text


def _turns(text: str, *, template: Template) -> list[dict[str, str]]:
    if template == "mistral":
        return _mistral_turns(_without_begin(text))
    if template not in _MARKUPS:
        raise InvalidRequest(
            f"unknown template {template!r}; give one of {', '.join([*_MARKUPS, 'mistral'])}",
            param="template",
        )
    markup = _MARKUPS[template]
    before, *pieces = markup.header.split(_without_begin(text))
    if before.strip() or not pieces:
        raise InvalidRequest(
            f"the text does not start with a turn of the template {template}; name the template "
            "that the trainer applied",
            param="template",
        )
    turns: list[dict[str, str]] = []
    for role, content in zip(pieces[::2], pieces[1::2], strict=True):
        ended = without_end(content) if markup.end in content else content
        turns.append({"role": _ROLES.get(role, role), "content": ended})
    return turns


def _mistral_turns(text: str) -> list[dict[str, str]]:
    before, *pieces = text.split("[INST]")
    if before.strip() or not pieces:
        raise InvalidRequest(
            "the text does not start with [INST]; name the template that the trainer applied",
            param="template",
        )
    turns: list[dict[str, str]] = []
    for piece in pieces:
        asked, closed, answered = piece.partition("[/INST]")
        if not closed:
            raise InvalidRequest("a turn has [INST] but no [/INST]", param="template")
        turns.append({"role": "user", "content": asked.strip()})
        turns.append({"role": "assistant", "content": without_end(answered).strip()})
    return turns
