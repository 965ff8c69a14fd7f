"""When a loop ends, and which iteration it keeps. Pure: what is known goes in, a decision out."""

from __future__ import annotations

from collections.abc import Sequence

from steerward.protocol.fine_tuning import IterationProgress
from steerward.protocol.rsf import RsfSettings


def why_stop(
    iteration: int,
    settings: RsfSettings,
    history: Sequence[IterationProgress],
    *,
    elapsed_s: float,
) -> str | None:
    """Return why an iteration is not begun; None: it is.

    Args:
        iteration: The next; the first is always begun.
        settings: The job's.
        history: What is known of those before, the start first.
        elapsed_s: Since this run of the job began.
    """
    if iteration == 1:
        return None
    if settings.max_sampled_tokens is not None:
        sampled = sum(one.sampled_tokens for one in history)
        if sampled >= settings.max_sampled_tokens:
            return f"{sampled:,} tokens were sampled, limit {settings.max_sampled_tokens:,}"
    if settings.max_seconds is not None:
        # Earlier runs, too, and of this one also what belongs to no step.
        spent_s = max(elapsed_s, sum(sum(one.seconds.values()) for one in history))
        if spent_s >= settings.max_seconds:
            return f"the job ran for {spent_s:,.0f} s, limit {settings.max_seconds:,.0f}"
    patience = settings.early_stopping_patience
    scores = [one.direction_score for one in history if one.direction_score is not None]
    if patience is None or len(scores) <= patience:
        return None
    if max(scores[-patience:]) > max(scores[:-patience]):
        return None
    return f"the direction score has not risen for {patience} iterations"


def chosen_iteration(
    last: int, settings: RsfSettings, history: Sequence[IterationProgress]
) -> tuple[int, str | None]:
    """Return which iteration's policy is kept, and a warning if it is no better than the start.

    Args:
        last: That was run.
        settings: The job's.
        history: What is known of all, the start first.
    """
    scores = {
        one.iteration: one.direction_score
        for one in history
        if one.iteration <= last and one.direction_score is not None
    }
    start = scores.pop(0, None)
    if settings.keep == "last" or not scores:
        return last, None
    # Of those that are level the first.
    best = max(scores, key=lambda number: (scores[number], -number))
    if start is None or scores[best] > start:
        return best, None
    return best, (
        f"no iteration has a higher direction score than the start ({start:.3f}); the best, "
        f"{best}, is kept all the same ({scores[best]:.3f})"
    )
