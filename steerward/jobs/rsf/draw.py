"""What an iteration draws: prompts, whose turn each direction is, and seeds.

All of it depends on the job's seed and the iteration alone, so that a job that was killed draws
the same again. Bits come from PCG64, whose stream numpy promises not to change; what numpy makes
of them is not promised, so that is done here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import RsfSettings

# At most this share of a file's rows is held out of training.
_HELD_OUT = 10


@dataclass(frozen=True, slots=True)
class Pick:
    """A prompt to sample, and under which directions."""

    number: int
    """Place in the iteration, from 0."""
    prompt: int
    """Which prompt, from 0."""
    directions: tuple[int, ...]
    """Which of the iteration's directions, all different."""
    seed: int
    """Of sampling; 31 bits."""


def bits(*key: object) -> np.random.PCG64:
    """Return a stream of random bits that depends on a key alone."""
    return np.random.PCG64(int.from_bytes(_digest(*key)[:16], "big"))


def uniforms(stream: np.random.PCG64, num: int) -> NDArray[np.float64]:
    """Return the next numbers of a stream, even over 0 (included) to 1 (not included)."""
    return (stream.random_raw(num) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(
    num_prompts: int,
    settings: RsfSettings,
    num_directions: int,
    *,
    iteration: int,
    seed: int,
) -> list[Pick]:
    """Return the prompts of an iteration with their directions.

    Iterations use up all prompts, in random order, before one comes again; within an iteration
    all are different while there are enough. Directions take turns, over prompts and iterations.

    Args:
        num_prompts: How many there are.
        settings: Say how many to draw, and under how many directions each.
        num_directions: Of the iteration.
        iteration: From 1.
        seed: The job's.

    Raises:
        InvalidRequest: If there are no prompts, or fewer directions than each prompt is to have.
    """
    each, count = settings.directions_per_prompt, settings.prompts_per_iteration
    if each > num_directions:
        raise InvalidRequest(
            f"directions_per_prompt is {each}, and there are {num_directions} directions; lower "
            "it, or give more directions",
            param="method.rsf.directions_per_prompt",
        )
    if num_prompts < 1:
        raise InvalidRequest("there are no prompts to draw from", param="training_file")
    turn = (iteration - 1) * count * each
    prompts = _prompts(num_prompts, count, iteration=iteration, seed=seed)
    return [
        Pick(
            number,
            prompt,
            tuple((turn + number * each + place) % num_directions for place in range(each)),
            int.from_bytes(_digest("pick", seed, iteration, number)[:4], "big") >> 1,
        )
        for number, prompt in enumerate(prompts)
    ]


def hold_out(prompts: Sequence[Hashable], wanted: int, seed: int) -> tuple[list[int], list[int]]:
    """Return rows to train on and rows to measure on, each in their order.

    As many as wanted are measured on, all different. Rows that are equal to one of them are not
    trained on either; in all, at most a tenth of the rows is not.

    Args:
        prompts: One a row; equal ones are the same prompt.
        wanted: How many to measure on.
        seed: The job's.
    """
    counts = Counter(prompts)
    spare = len(prompts) // _HELD_OUT
    held_out: dict[Hashable, int] = {}
    for row in _shuffled(len(prompts), "held out", seed).tolist():
        if len(held_out) == wanted or not spare:
            break
        prompt = prompts[row]
        if prompt not in held_out and counts[prompt] <= spare:
            held_out[prompt] = row
            spare -= counts[prompt]
    training = [row for row, prompt in enumerate(prompts) if prompt not in held_out]
    return training, sorted(held_out.values())


def _prompts(num_prompts: int, count: int, *, iteration: int, seed: int) -> list[int]:
    """Return the prompts of an iteration: a piece of one shuffle of all after the other."""
    begin, end = (iteration - 1) * count, iteration * count
    are_enough = count <= num_prompts
    taken: list[int] = []
    order = np.arange(0)
    # Where all can be different, each shuffle depends on how the one before ended.
    for epoch in range(0 if are_enough else begin // num_prompts, (end - 1) // num_prompts + 1):
        start = epoch * num_prompts
        before, order = order, _shuffled(num_prompts, "prompts", seed, epoch)
        num_used = start % count
        if epoch and num_used and are_enough:
            order = _put_off(order, before[-num_used:], num=count - num_used)
        taken += order[max(begin - start, 0) : max(end - start, 0)].tolist()
    return taken


def _put_off(order: NDArray[np.intp], used: NDArray[np.intp], *, num: int) -> NDArray[np.intp]:
    """Return an order whose first `num` are none of the used: these change places with others."""
    is_used = np.isin(order, used)
    clashes = np.flatnonzero(is_used[:num])
    spares = num + np.flatnonzero(~is_used[num:])[: len(clashes)]
    changed = order.copy()
    changed[clashes], changed[spares] = order[spares], order[clashes]
    return changed


def _shuffled(num: int, *key: object) -> NDArray[np.intp]:
    return np.argsort(bits(*key).random_raw(num), kind="stable")


def _digest(*key: object) -> bytes:
    return hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
