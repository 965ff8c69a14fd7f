"""Rewards that the server gives which started this process, asked for at a socket.

Each process that trains asks for its own completions, whenever it needs them: nothing here waits
for the others.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steerward.protocol.align_work import RewardGroup, RewardsGiven, RewardsWanted
from steerward.protocol.errors import ConnectionFailed
from steerward.training.align.columns import RewardSource
from steerward.training.align.turns import answer_text, prompt_turns

Rewards = list[dict[str, float | None]]
"""Of some completions, each by objective."""

# Characters of one line, so that it stays well below the longest that is taken: in JSON one may
# have twelve bytes.
_MOST_CHARACTERS = 1 << 20
# Rewards that are kept at least; of large batches, so many batches are.
_LEAST_KEPT, _BATCHES_KEPT = 4096, 2


def asked_source(path: Path, *, version: str, most_candidates: int) -> RewardSource:
    """Return the columns of the server's reward model; of a batch all come from one question.

    Args:
        path: Of the socket; it is connected to when the first rewards are needed.
        version: Of the weights of the reward model.
        most_candidates: Most completions of one prompt that it takes at once.
    """
    connection = Connection(path)

    def source(names: Sequence[str]) -> Sequence[Any]:
        columns = AskedColumns(connection.ask, names, most_candidates=most_candidates)
        return [columns.function(name) for name in names]

    source.version = version  # pyright: ignore[reportFunctionMemberAccess]
    return source


class Connection:
    """A connection to the server that is made when it is needed.

    Args:
        path: Of the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Any = None

    def ask(self, wanted: RewardsWanted) -> RewardsGiven:
        """Return the answer to a line.

        Raises:
            ConnectionFailed: If there is none.
        """
        try:
            if self._lines is None:
                self._lines = _connected(self._path)
            self._lines.write(wanted.model_dump_json().encode() + b"\n")
            self._lines.flush()
            return RewardsGiven.model_validate_json(self._lines.readline())
        except (OSError, ValidationError) as error:
            raise ConnectionFailed(
                f"the server that started this process gives no rewards ({type(error).__name__})"
            ) from error


def _connected(path: Path) -> Any:
    """Return a file of lines to and from a socket, which is closed with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.connect(str(path))
        return asking.makefile("rwb")


class AskedColumns:
    """Reward functions that share what was asked for the last few batches.

    Each completion is asked for once, also where judges and tasks look at parts of a batch.

    Args:
        ask: Gives the answer to a question.
        names: Of the objectives, `score` among them.
        most_candidates: Most completions of one prompt in a group.
    """

    def __init__(
        self,
        ask: Callable[[RewardsWanted], RewardsGiven],
        names: Sequence[str],
        *,
        most_candidates: int,
    ) -> None:
        self._ask = ask
        self._names = list(names)
        self._most_candidates = most_candidates
        # By prompt and completion, what was not needed for longest first.
        self._known: dict[bytes, dict[str, float | None]] = {}
        self._most_kept = _LEAST_KEPT

    def function(self, name: str) -> Callable[..., list[float | None]]:
        """Return the reward function of an objective."""

        def column(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> Any:
            found = self._of(prompts, completions)
            return [rewards[name] for rewards in found]

        column.__name__ = column.__qualname__ = name
        return column

    def _of(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Rewards:
        """Return the rewards of a batch; what is not known is asked for."""
        batch = [
            (prompt_turns(prompt), answer_text(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        keys = [_key(turns, answer) for turns, answer in batch]
        new = {key: one for key, one in zip(keys, batch, strict=True) if key not in self._known}
        self._known.update(zip(new, self._asked([*new.values()]), strict=True))
        rewards = [self._known[key] for key in keys]
        self._forget(keys)
        return rewards

    def _asked(self, batch: Sequence[tuple[Any, str]]) -> Rewards:
        found: Rewards = []
        for groups in _lines_of(batch, most_candidates=self._most_candidates):
            wanted = RewardsWanted(objectives=self._names, groups=groups)
            for given in self._ask(wanted).rewards:
                found += given
        if len(found) != len(batch):
            raise ConnectionFailed(
                f"the server gave rewards of {len(found)} completions, asked for {len(batch)}"
            )
        return found

    def _forget(self, used: Sequence[bytes]) -> None:
        """Keep the rewards of the last few batches, those just used among them."""
        for key in used:
            self._known[key] = self._known.pop(key)
        self._most_kept = max(self._most_kept, _BATCHES_KEPT * len(used))
        while len(self._known) > self._most_kept:
            del self._known[next(iter(self._known))]


def _key(turns: Sequence[Mapping[str, str]], answer: str) -> bytes:
    return hashlib.sha256(json.dumps([turns, answer]).encode()).digest()


def _lines_of(
    batch: Sequence[tuple[Any, str]], *, most_candidates: int
) -> Iterator[list[RewardGroup]]:
    """Yield a batch as groups of one prompt that follow each other, a line's worth at a time."""
    groups: list[tuple[Any, list[str]]] = []
    length = 0
    for turns, answer in batch:
        longer = len(answer) + sum(len(turn["content"]) for turn in turns)
        if length and length + longer > _MOST_CHARACTERS:
            yield _grouped(groups)
            groups, length = [], 0
        length += longer
        if groups and groups[-1][0] == turns and len(groups[-1][1]) < most_candidates:
            groups[-1][1].append(answer)
        else:
            groups.append((turns, [answer]))
    if groups:
        yield _grouped(groups)


def _grouped(groups: Sequence[tuple[Any, list[str]]]) -> list[RewardGroup]:
    return [RewardGroup(messages=turns, completions=answers) for turns, answers in groups]
