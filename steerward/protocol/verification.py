"""Samples of NeMo Gym: how server and adapter read one, and what they answer it is worth.

What a sample is judged by is its text: reasoning is left out, and a sample with tool calls is
refused, since the reward model reads none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, ConfigDict, Field

from steerward.protocol.conversations import at, conversation
from steerward.protocol.errors import InvalidRequest, brief
from steerward.protocol.items import Message, ScoreItem
from steerward.protocol.wire import AnswerModel

_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


class _Open(AnswerModel):
    """A part of a body that is given back as it came, with keys that nobody here reads."""

    model_config = ConfigDict(strict=True)


def _few(value: object) -> object:
    # Every entry is kept as an object of its own.
    if isinstance(value, list) and len(cast("list[object]", value)) > 1024:
        raise ValueError("more than 1,024 entries; send one conversation")
    return cast("object", value)


Entries = Annotated[list[dict[str, Any]], BeforeValidator(_few)]


class AskedFor(_Open):
    """What the policy was asked, in the words of OpenAI's Responses."""

    input: str | Entries
    """A user turn, or messages."""
    instructions: str | None = None
    """A system turn before them."""


class Answered(_Open):
    """What the policy answered."""

    output: Entries
    """Of which the messages are the answer."""


class VerifyRequest(_Open):
    """Body of ``POST /verify``. Other keys, such as the columns of the data set, come back too."""

    responses_create_params: AskedFor
    response: Answered


class VerifyAnswer(AnswerModel):
    """Answer of ``POST /verify``: the body, and what it is worth."""

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    reward: float
    """The number that the URL asks for; of `reward_components` the sum, to the bit."""
    reward_components: dict[str, float] = Field(min_length=1)
    """What each objective adds to it, by name."""


def read_sample(sample: VerifyRequest, *, whole: Callable[[list[str]], list[str]]) -> ScoreItem:
    """Return the conversation of a sample.

    Args:
        sample: As the pipeline sent it.
        whole: Returns texts without halves of characters.

    Raises:
        InvalidRequest: If an entry cannot be read, or the turns cannot be scored; with its place.
    """
    turns = [*_asked(sample.responses_create_params), _answer(sample.response)]
    contents = whole([turn["content"] for turn in turns])
    messages = [
        Message.model_validate({**turn, "content": content})
        for turn, content in zip(turns, contents, strict=True)
    ]
    return conversation(messages, place="responses_create_params.input")


def worth(
    value: float,
    *,
    kind: str,
    rewards: Mapping[str, float],
    contributions: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return what the answer to a sample says beside its body.

    Args:
        value: The number that was asked for.
        kind: Which score that is: `score`, `direction_score`, or `weighted_score`.
        rewards: Raw rewards by objective.
        contributions: Of the objectives to `score`, where a gate gives it.
    """
    if kind != "score":
        components: Mapping[str, float] = {kind: value}
    else:
        # Without a gate there is a score only where there is one objective.
        components = contributions or {next(iter(rewards)): value}
    exact = summable(components)
    return {
        **{f"objective/{name}": reward for name, reward in rewards.items()},
        "reward": sum(exact.values()),
        "reward_components": exact,
    }


def summable(values: Mapping[str, float]) -> dict[str, float]:
    """Return numbers of which every sum is exact, in any order, changed in the 15th digit.

    NeMo-RL compares the reward with the sum. Each is rounded to a multiple of one power of two,
    so small that nothing is lost and so large that the sums of all have room in 53 bits.
    """
    _, exponent = math.frexp(sum(abs(value) for value in values.values()))
    unit = math.ldexp(1.0, max(exponent - 51, -1074))
    return {name: round(value / unit) * unit for name, value in values.items()}


def _asked(asked: AskedFor) -> list[dict[str, str]]:
    place = "responses_create_params.input"
    found = [] if asked.instructions is None else [_turn("system", asked.instructions)]
    if isinstance(asked.input, str):
        return [*found, _turn("user", asked.input)]
    for i, entry in enumerate(asked.input):
        here = f"{place}[{i}]"
        kind = entry.get("type", "message")
        if kind == "reasoning":
            continue
        if kind != "message":
            raise _unreadable(here, kind)
        role = entry.get("role")
        if role not in _ROLES:
            raise InvalidRequest(f"{here}: its role is none of {', '.join(_ROLES)}", param=here)
        found.append(_turn(_ROLES[role], _text(entry.get("content"), here)))
    return found


def _answer(answered: Answered) -> dict[str, str]:
    """Return the assistant's turn: the texts of all messages, joined as OpenAI's client does."""
    texts: list[str] = []
    for i, entry in enumerate(answered.output):
        here = f"response.output[{i}]"
        kind = entry.get("type", "message")
        if kind == "message":
            texts.append(_text(entry.get("content"), here))
        elif kind != "reasoning":
            raise _unreadable(here, kind)
    return _turn("assistant", "".join(texts))


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _text(content: object, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise at(place, InvalidRequest("its content is neither text nor a list of parts"))
    texts: list[str] = []
    for part in cast("list[object]", content):
        fields = cast("dict[str, object]", part) if isinstance(part, dict) else {}
        key = _TEXT_PARTS.get(str(fields.get("type")), "")
        text = fields.get(key)
        if not isinstance(text, str):
            raise at(place, InvalidRequest("a part of its content is not text; send text only"))
        texts.append(text)
    return "".join(texts)


def _unreadable(place: str, kind: object) -> InvalidRequest:
    return at(
        place,
        InvalidRequest(
            f"an entry of type {brief(str(kind))!r} cannot be read by the reward model; verify "
            "samples of messages only"
        ),
    )
