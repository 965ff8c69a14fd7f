"""Which replica gets a request: where its prompts have been, unless too much waits there. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerward.protocol.items import ScoreItem

# What a remembered prompt costs is some 200 bytes, however long it is.
_MAX_PROMPTS = 65_536

# Prompts that come as ids are told apart by so many.
_OPENING_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Note:
    """What the router was told of a request, and what it knew of the prompts before."""

    turn: int
    before: dict[int, tuple[int, int] | None]


class Router:
    """Remembers which replica has seen a prompt last, for the latest prompts only.

    Args:
        slack_tokens: By so many tokens may the replica that knows the prompts be behind the one
            with the least to do.
        max_prompts: To remember.
    """

    def __init__(self, *, slack_tokens: int, max_prompts: int = _MAX_PROMPTS) -> None:
        self._slack_tokens = slack_tokens
        self._max_prompts = max_prompts
        # Replica and turn of each prompt.
        self._seen: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._turn = 0
        self._last_turn: Counter[int] = Counter()

    def order(self, prompts: Sequence[int], loads: Mapping[int, int]) -> list[int]:
        """Return the replicas in the order to try them.

        Args:
            prompts: Keys of the request's prompts.
            loads: Tokens that wait or run, of each replica that takes requests.
        """
        # Equal ones take turns.
        order = sorted(loads, key=lambda replica: (loads[replica], self._last_turn[replica]))
        knowing = Counter(self._seen[key][0] for key in prompts if key in self._seen)
        for replica, _ in knowing.most_common():
            if replica in loads and loads[replica] - loads[order[0]] <= self._slack_tokens:
                order.remove(replica)
                return [replica, *order]
        return order

    def note(self, prompts: Sequence[int], replica: int) -> Note:
        """Remember that a replica sees these prompts now: those that follow go there too."""
        self._turn += 1
        self._last_turn[replica] = self._turn
        note = Note(self._turn, {key: self._seen.get(key) for key in prompts})
        for key in prompts:
            self._seen[key] = replica, self._turn
            self._seen.move_to_end(key)
        while len(self._seen) > self._max_prompts:
            self._seen.popitem(last=False)
        return note

    def take_back(self, note: Note) -> None:
        """Forget a note of what came to nothing, but for prompts that were noted again since."""
        for key, before in note.before.items():
            _, turn = self._seen.get(key, (0, 0))
            if turn != note.turn:
                continue
            if before is None:
                del self._seen[key]
            else:
                self._seen[key] = before


def prompt_key(item: ScoreItem) -> int:
    """Return a key of how an item's prompt begins: up to the first turn of the user's.

    So a conversation that goes on stays where it was. Prompts that share a key by chance share a
    replica, which is only a matter of speed.
    """
    if item.tokens is not None:
        return hash(tuple(item.tokens.prompt[:_OPENING_TOKENS]))
    turns = [(message.role, message.content) for message in item.context]
    first = next(i for i, (role, _) in enumerate(turns) if role == "user")
    return hash(tuple(turns[: first + 1]))
