"""Takes texts apart in which prompt and answer are joined, so that they become messages again.

Trainers send what their policy read and wrote: one text, in the policy's chat template, special
tokens included. The reward model reads messages in its own template, so the turns are read back
out of the markup. A turn's content comes back as it stands between its marks; around content in
Mistral's markup white space is removed, since that markup adds some. Gemma's markup, and
Mistral's newer one, write a system turn into the user's: there it stays.

Nothing is guessed. Where marks stand inside a turn, they cannot be told from text that looks like
marks, and the text is refused; what forges whole turns cannot be told apart at all. A caller that
sends the prompt beside the text (OpenRLHF) says where the answer begins: marks inside the answer
are text then. Without markup and without a prompt nobody knows where the answer begins, and the
text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from steerward.config import TemplateName
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.items import Message, Role
from steerward.server.compat.markups import (
    MARKUPS,
    PLAIN_LEFTOVERS,
    Markup,
    end_before,
    start_behind,
)

_SYSTEM_PROMPT = re.compile(r"\[SYSTEM_PROMPT\](.*?)\[/SYSTEM_PROMPT\]\s*", re.DOTALL)
_LLAMA2_SYSTEM = re.compile(r"\s*<<SYS>>\n(.*?)\n<</SYS>>\s*(.*)", re.DOTALL)
_BETWEEN_ROUNDS = re.compile(r"(?:\s|<s>)*")
_MISTRAL_MARK = re.compile(r"\[/?INST\]")


@dataclass(frozen=True, slots=True)
class _Turn:
    role: Role
    content: str
    is_open: bool = False
    """Whether its end is missing: it is the last, and something is still to come."""


def read_transcript(
    text: str, *, template: TemplateName | None = None, prompt: str | None = None
) -> list[Message]:
    """Return the messages of a text.

    Args:
        text: Prompt and answer, joined.
        template: Markup that it is in; None: the one that it begins with; none: it has no markup.
        prompt: Its beginning, where the caller sends it too; a text without markup is then one
            user turn, and the answer what follows.

    Raises:
        InvalidRequest: If the turns cannot be told apart for sure.
    """
    markup = _markup(text, template)
    if markup is None:
        return _plain(text, prompt)
    body = text[markup.begin(text) :]
    turns = None if prompt is None else _turns_behind(prompt, body, markup)
    if turns is None:
        turns = _turns(markup.without_end(body), markup)
    return [Message(role=turn.role, content=turn.content) for turn in turns]


def _markup(text: str, template: TemplateName | None) -> Markup | None:
    """Return the markup that a text begins with; None if it has none."""
    wanted = [m for m in MARKUPS.values() if template in (None, m.name)]
    found = next((m for m in wanted if m.header.match(text, m.begin(text))), None)
    if found is None and template not in (None, "none"):
        raise InvalidRequest(
            f"the text does not begin with a turn in {wanted[0].title} markup; name the template "
            "of the policy that wrote it, or leave ?template= out to have it recognised"
        )
    return found


def _plain(text: str, prompt: str | None) -> list[Message]:
    if prompt is None:
        known = ", ".join(MARKUPS)
        raise InvalidRequest(
            "the text has no markup that is known here, so nothing tells where the answer begins; "
            f"send it in a chat template, and name that with ?template= (known: {known}), or send "
            "prompts beside the texts, or messages to POST /v1/score"
        )
    body = text[start_behind(text, PLAIN_LEFTOVERS) :]
    asked = prompt[start_behind(prompt, PLAIN_LEFTOVERS) :]
    if not body.startswith(asked):
        raise InvalidRequest(
            "the text does not begin with its prompt, so nothing tells where the answer begins; "
            "send the prompt as the text holds it"
        )
    answer = body[len(asked) :]
    answer = answer[: end_before(answer, PLAIN_LEFTOVERS)]
    return [Message(role="user", content=asked), Message(role="assistant", content=answer)]


def _turns_behind(prompt: str, body: str, markup: Markup) -> Sequence[_Turn] | None:
    """Return the turns of a text whose prompt is known; None if the prompt does not tell them."""
    asked = prompt[markup.begin(prompt) :]
    if not asked or not body.startswith(asked):
        return None
    try:
        *turns, last = _turns(asked, markup)
    except InvalidRequest:
        return None  # Such as one that ends within a mark; the text may be readable still.
    if last.role != "assistant" or not last.is_open:
        return None
    answer = last.content + markup.without_end(body[len(asked) :])
    if markup.name == "mistral":
        answer = answer.strip()
    return [*turns, _Turn("assistant", answer)]


def _turns(text: str, markup: Markup) -> list[_Turn]:
    return _mistral_turns(text) if markup.name == "mistral" else _marked_turns(text, markup)


def _marked_turns(text: str, markup: Markup) -> list[_Turn]:
    turns: list[_Turn] = []
    position = 0
    while position < len(text):
        header = markup.header.match(text, position)
        role = markup.roles.get(header[1]) if header else None
        if header is None or role is None:
            raise _unreadable(markup.title, position, "no turn of a known role begins")
        end = text.find(markup.end, header.end())
        content = text[header.end() :] if end < 0 else text[header.end() : end]
        if markup.header.search(content):
            raise _unreadable(markup.title, header.end(), "a turn begins inside another")
        turns.append(_Turn(role, content, is_open=end < 0))
        position = len(text) if end < 0 else _behind_space(text, end + len(markup.end))
    return turns


def _mistral_turns(text: str) -> list[_Turn]:
    """Return the turns of `[INST] question [/INST] answer</s>`, with either kind of system turn."""
    turns: list[_Turn] = []
    position = 0
    if system := _SYSTEM_PROMPT.match(text):
        turns.append(_Turn("system", system[1].strip()))
        position = system.end()
    while position < len(text):
        begin, middle = position + len("[INST]"), text.find("[/INST]", position)
        if not text.startswith("[INST]", position) or middle < 0:
            raise _unreadable("Mistral", position, "there is no [INST] ... [/INST]")
        question = text[begin:middle]
        if not turns and (system := _LLAMA2_SYSTEM.fullmatch(question)):
            turns.append(_Turn("system", system[1]))
            question = system[2]
        begin = middle + len("[/INST]")
        end = text.find("</s>", begin)
        answer = text[begin:] if end < 0 else text[begin:end]
        if "[INST]" in question or _MISTRAL_MARK.search(answer):
            raise _unreadable("Mistral", position, "a turn begins inside another")
        turns += [
            _Turn("user", question.strip()),
            _Turn("assistant", answer.strip(), is_open=end < 0),
        ]
        position = len(text) if end < 0 else _behind_round(text, end + len("</s>"))
    return turns


def _behind_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _behind_round(text: str, position: int) -> int:
    match = _BETWEEN_ROUNDS.match(text, position)
    return match.end() if match else position


def _unreadable(title: str, position: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"the {title} markup cannot be read: {what} at character {position:,} of its turns, so "
        "marks and text that looks like marks cannot be told apart; send prompts beside the texts "
        "where the protocol has them, or messages to POST /v1/score"
    )
