"""How long a request would wait, and whether all that was promised can still be kept: pure."""

from __future__ import annotations

from dataclasses import dataclass

from steerward.engine.queue import Backlog

# Of the tokens due no later than a request, `batcher` may compute a third more before it is done.
_FAIRNESS = 4 / 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would come of admitting a request."""

    wait_s: float
    """Until its scores are there, at most."""
    excess_s: float
    """By how much it would be late, or make an admitted request late; positive if so."""


def forecast(
    backlog: Backlog,
    *,
    tokens: int,
    deadline: float,
    now: float,
    pass_tokens: int,
) -> Forecast:
    """Return what to expect of a request of so many tokens; the speed must be known.

    Tokens due no later go before it; each request due later is pushed back by it. Both are done
    within the bound of `batcher`, reckoned with one pass, since the tokens that run count whole
    until they are done. A request due later counts while it can still be in time without this
    one, if nothing else came in.
    """
    speed = backlog.tokens_per_s

    def finish(ahead: int) -> float:
        return now + (_FAIRNESS * ahead + pass_tokens) / speed

    ahead = backlog.running + tokens
    later: list[tuple[float, int]] = []
    for due, queued in backlog.due:
        if due <= deadline:
            ahead += queued
        else:
            later.append((due, queued))
    done_at = finish(ahead)
    excess_s = done_at - deadline
    for due, queued in later:
        ahead += queued
        if now + (ahead - tokens) / speed <= due:
            excess_s = max(excess_s, finish(ahead) - due)
    return Forecast(done_at - now, excess_s)
