"""What a judge is, and how what trainers hold becomes the text that it reads.

A judge decides of each completion whether it satisfies a rule (CGPO, arXiv:2409.20370, section
4.1). It gives no number between: passes, fails, does not apply, or the judge itself failed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from steerward.protocol.errors import InvalidRequest, SteerwardError, brief

_NAME = re.compile(r"[A-Za-z0-9_.-]+")

Verdict = Literal[1, 0, -1]
"""1: the completion passes. 0: it fails. -1: the judge itself failed, which says nothing of it."""
Row = Mapping[str, Any]
"""The other columns of a completion's prompt in the dataset: gold answer, unit tests, ..."""
Turns = str | Sequence[Mapping[str, Any]]
"""A prompt or a completion: text, or messages with role and content."""


class JudgeFailed(SteerwardError):
    """A judge could not judge too large a part of the completions; training on would be blind."""

    code = "judge_failed"


class Judge(Protocol):
    """Decides whether completions satisfy a rule."""

    @property
    def name(self) -> str:
        """Under which its verdicts are logged."""
        ...

    def judge(
        self,
        prompts: Sequence[Turns],
        completions: Sequence[Turns],
        gold_completions: Sequence[Turns] | None = None,
        shuffle_order: bool = True,
        *,
        rows: Sequence[Row] | None = None,
    ) -> list[Verdict | None]:
        """Return a verdict for each completion; None where the rule does not apply to its row.

        The positional arguments are those of TRL's former `BaseBinaryJudge.judge`.

        Args:
            prompts: One for each completion.
            completions: To be judged.
            gold_completions: Reference answers, one for each completion.
            shuffle_order: Whether completions may be looked at in another order.
            rows: The other columns of the dataset, one mapping for each completion.
        """
        ...


def checked_name(name: str) -> str:
    """Return the name of a judge.

    Raises:
        ValueError: If it has what would break the names of metrics, or the lines of a log.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"a judge is called {brief(ascii(name))}; a name may have letters from a to z, "
            "digits, and _ . - only, and at least one of them"
        )
    return name


@dataclass(frozen=True, slots=True)
class Sample:
    """What a judge that looks at one completion at a time sees of it."""

    prompt: Turns
    completion: str
    gold_completion: str | None
    row: Row

    @property
    def prompt_text(self) -> str:
        """The prompt as text: turns under their roles, or the text that it is."""
        return prompt_text(self.prompt)

    def get(self, column: str | None) -> Any:
        """Return the row's value in a column; None if it has none there."""
        return None if column is None else self.row.get(column)


class SampleJudge(ABC):
    """A judge that decides of each completion by itself, so that their order cannot matter."""

    __slots__ = ()

    def judge(
        self,
        prompts: Sequence[Turns],
        completions: Sequence[Turns],
        gold_completions: Sequence[Turns] | None = None,
        shuffle_order: bool = True,  # noqa: ARG002  # of the protocol; no order matters here
        *,
        rows: Sequence[Row] | None = None,
    ) -> list[Verdict | None]:
        """Return a verdict for each completion; `Judge.judge` says what the arguments are.

        Raises:
            InvalidRequest: If the arguments are not of one length, or hold more than text.
        """
        return self.decide_all(samples_of(prompts, completions, gold_completions, rows=rows))

    def decide_all(self, samples: Sequence[Sample]) -> list[Verdict | None]:
        """Return a verdict for each sample; one after the other unless a judge knows better."""
        return [self.decide(sample) for sample in samples]

    @abstractmethod
    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict for one sample."""


def samples_of(
    prompts: Sequence[Turns],
    completions: Sequence[Turns],
    gold_completions: Sequence[Turns] | None = None,
    *,
    rows: Sequence[Row] | None = None,
) -> list[Sample]:
    """Return the samples that the arguments of `Judge.judge` describe.

    Raises:
        InvalidRequest: If the arguments are not of one length, or hold more than text.
    """
    sizes = {"prompts": len(prompts), "completions": len(completions)}
    if gold_completions is not None:
        sizes["gold_completions"] = len(gold_completions)
    if rows is not None:
        sizes["rows"] = len(rows)
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in sizes.items())
        raise InvalidRequest(f"a judge got {told}; give one of each for every completion")
    return [
        Sample(
            prompt=prompt,
            completion=completion_text(completion, param=f"completions[{i}]"),
            gold_completion=_gold(gold_completions, i),
            row={} if rows is None else rows[i],
        )
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _gold(gold_completions: Sequence[Turns] | None, i: int) -> str | None:
    if gold_completions is None or gold_completions[i] is None:
        return None
    return completion_text(gold_completions[i], param=f"gold_completions[{i}]")


def completion_text(completion: Turns, *, param: str = "completion") -> str:
    """Return a completion as text: itself, or the contents of its assistant turns.

    Raises:
        InvalidRequest: If it is neither text nor messages that hold text.
    """
    turns = conversation(completion, role="assistant", param=param)
    return "\n\n".join(turn["content"] for turn in turns if turn["role"] == "assistant")


def prompt_text(prompt: Turns, *, param: str = "prompt") -> str:
    """Return a prompt as text; several turns each under their role.

    Raises:
        InvalidRequest: If it is neither text nor messages that hold text.
    """
    turns = conversation(prompt, role="user", param=param)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def conversation(turns: Turns, *, role: str, param: str) -> list[dict[str, str]]:
    """Return messages; text becomes one message of a role.

    Raises:
        InvalidRequest: If there are no messages, or one holds more than text.
    """
    if isinstance(turns, str):
        return [{"role": role, "content": turns}]
    if not isinstance(turns, Iterable) or isinstance(turns, Mapping) or not list(turns):
        raise InvalidRequest(
            f"{param} is neither text nor a list of messages; give one of these", param=param
        )
    return [_message(turn, param=f"{param}[{i}]") for i, turn in enumerate(turns)]


def _message(turn: Mapping[str, Any], *, param: str) -> dict[str, str]:
    if not isinstance(turn, Mapping) or "role" not in turn or "content" not in turn:
        raise InvalidRequest(f"{param} is no message; it needs role and content", param=param)
    content = turn["content"]
    if isinstance(content, list):
        content = _joined(cast("list[Any]", content))
    if not isinstance(content, str):
        raise InvalidRequest(
            f"{param}.content is not text alone, which judges read; give a string or text parts",
            param=param,
        )
    return {"role": str(turn["role"]), "content": content}


def _joined(parts: list[Any]) -> str | None:
    texts: list[str] = []
    for part in parts:
        text = cast("Any", part.get("text")) if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)
