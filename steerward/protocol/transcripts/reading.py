"""Takes texts apart in which prompt and answer are joined, so that they become messages again.

Trainers send what their policy read and wrote: one text, in the policy's chat template, special
tokens included. The reward model reads messages in its own template, so the turns are read back
out of the markup. A turn's content comes back as it stands between its marks; around content in
Mistral's markup white space is removed, since that markup adds some. Gemma's markup, and
Mistral's newer one, write a system turn into the user's: there it stays.

Nothing is guessed. Where marks stand inside a turn, they cannot be told from text that looks like
marks, and the text is refused; what forges whole turns cannot be told apart at all. A caller that
has the prompt too (OpenRLHF, slime, AReaL) says where the answer begins: the prompt tells the
markup, and marks inside the answer are text. A prompt that opens no answer, such as one that ends
with the user's turn, leaves that to the answer's marks, which may open the assistant's turn only.
Without markup and without a prompt nobody knows where the answer begins, and the text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from steerward.protocol.conversations import at, conversation
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.items import Message, Role, ScoreItem
from steerward.protocol.transcripts.markups import (
    MARKUPS,
    PLAIN_LEFTOVERS,
    Markup,
    TemplateName,
    end_before,
    known_template,
    start_behind,
)
from steerward.protocol.validation import invalid_request

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


def read_conversation(
    text: str, *, place: str, template: TemplateName | None = None, prompt: str | None = None
) -> ScoreItem:
    """Return the item of a text; arguments as for `read_transcript`, and where the text stands.

    Raises:
        InvalidRequest: If the turns cannot be told apart for sure, or cannot be scored.
    """
    known_template(template)
    try:
        messages = read_transcript(text, template=template, prompt=prompt)
    except InvalidRequest as error:
        raise at(place, error) from None
    return conversation(messages, place=place)


def read_transcript(
    text: str, *, template: TemplateName | None = None, prompt: str | None = None
) -> list[Message]:
    """Return the messages of a text.

    Args:
        text: Prompt and answer, joined.
        template: Markup that it is in; None: the one that it begins with; none: it has no markup.
        prompt: Its beginning, where the caller has it too; one without markup is a user turn,
            and the answer what follows.

    Raises:
        InvalidRequest: If the turns cannot be told apart for sure.
    """
    # What the policy wrote has no say in it where the prompt is known.
    markup = _markup(text if prompt is None else prompt, template)
    leftovers = PLAIN_LEFTOVERS if markup is None else markup.leftovers
    body = text[start_behind(text, leftovers) :]
    asked = None if prompt is None else _asked(prompt, body, leftovers)
    if markup is None:
        turns = _plain(body, asked)
    elif asked is None:
        turns = _turns(markup.without_end(body), markup)
    else:
        turns = _turns_behind(asked, body, markup)
    try:
        return [Message(role=turn.role, content=turn.content) for turn in turns]
    except ValidationError as error:
        raise invalid_request(error.errors()) from None


def _markup(text: str, template: TemplateName | None) -> Markup | None:
    """Return the markup that a text begins with; None if it has none."""
    wanted = [m for m in MARKUPS.values() if template in (None, m.name)]
    found = next((m for m in wanted if m.header.match(text, m.begin(text))), None)
    if found is None and template not in (None, "none"):
        raise InvalidRequest(
            f"the text does not begin with a turn in {wanted[0].title} markup; name the template "
            "of the policy that wrote it, or leave template out to have it recognised"
        )
    return found


def _asked(prompt: str, body: str, leftovers: Sequence[str]) -> str:
    """Return a prompt as the text begins with it, behind leftovers."""
    asked = prompt[start_behind(prompt, leftovers) :]
    if not asked:
        raise InvalidRequest("the prompt is empty; there is nothing that the text answers")
    if not body.startswith(asked):
        raise InvalidRequest(
            "the text does not begin with its prompt, so nothing tells where the answer begins; "
            "send the prompt as the text holds it"
        )
    return asked


def _plain(body: str, asked: str | None) -> list[_Turn]:
    if asked is None:
        known = ", ".join(MARKUPS)
        raise InvalidRequest(
            "the text has no markup that is known here, so nothing tells where the answer begins; "
            f"give it in a chat template, and name that as template (known: {known}), or give "
            "prompts beside the texts, or messages"
        )
    answer = body[len(asked) :]
    answer = answer[: end_before(answer, PLAIN_LEFTOVERS)]
    return [_Turn("user", asked), _Turn("assistant", answer)]


def _turns_behind(asked: str, body: str, markup: Markup) -> list[_Turn]:
    """Return the turns of a text whose prompt is known."""
    try:
        *turns, last = _turns(asked, markup)
    except InvalidRequest:
        # Such as one that ends within a mark; the text may be readable still.
        return _turns_opened_by_answer(asked, body, markup)
    if last.role != "assistant" or not last.is_open:
        return _turns_opened_by_answer(asked, body, markup)
    answer = last.content + markup.without_end(body[len(asked) :])
    if markup.name == "mistral":
        answer = answer.strip()
    return [*turns, _Turn("assistant", answer)]


def _turns_opened_by_answer(asked: str, body: str, markup: Markup) -> list[_Turn]:
    """Return the turns of a text whose prompt opens no answer, so that marks behind it do."""
    for header in markup.header.finditer(body):
        if header.end() > len(asked) and markup.roles.get(header[1]) != "assistant":
            raise _unreadable(
                markup.title, header.start(), "a turn of another role begins behind the prompt"
            )
    return _turns(markup.without_end(body), markup)


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
        "marks and text that looks like marks cannot be told apart; give prompts that open the "
        "answer beside the texts where the protocol has them, or messages"
    )
