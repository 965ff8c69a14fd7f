"""Whether a reward model may take the place of another, without its clients being told."""

from __future__ import annotations

from steerward.models.chat import Turn
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import CheckpointRefused

_PROBE: list[Turn] = [{"role": "user", "content": "Explain rainbows: why, and when?"}]
_ANSWERS = ["Light splits in drops.", "1 + 1 = 2"]


def check_takes_over(new: RewardModel, old: RewardModel, *, folder: str) -> None:
    """Refuse a model whose answers have other keys, or that reads requests otherwise.

    Args:
        new: That arrives.
        old: That is served.
        folder: Where the new one comes from.

    Raises:
        CheckpointRefused: If it cannot take over; what differs is named.
    """
    difference = _other_keys(new, old) or _other_reading(new, old)
    if difference is not None:
        raise CheckpointRefused(
            f"the weights in {folder} cannot take over: {difference}; serve them under a name of "
            "their own (--reward-model)"
        )


def _other_keys(new: RewardModel, old: RewardModel) -> str | None:
    """Return how the keys of answers would differ, or None."""
    names, served = new.objectives.names, old.objectives.names
    if names != served:
        place = next(
            (k for k, pair in enumerate(zip(names, served, strict=False)) if pair[0] != pair[1]),
            min(len(names), len(served)),
        )
        found, wanted = (
            repr(known[place]) if place < len(known) else "none" for known in (names, served)
        )
        return (
            f"they have {len(names)} objectives, {len(served)} are served, and number {place + 1} "
            f"is {found}, served is {wanted}"
        )
    for ours, theirs in zip(new.objectives.objectives, old.objectives.objectives, strict=True):
        scales = [one.rating.label if one.rating else "none" for one in (ours, theirs)]
        if scales[0] != scales[1]:
            return f"{ours.name!r} has rating scale {scales[0]}, served is {scales[1]}"
    gates = ["none" if one.gate is None else one.gate.reads for one in (new, old)]
    if gates[0] != gates[1]:
        return f"what their gate reads is {gates[0]}, served is {gates[1]}"
    return None


def _other_reading(new: RewardModel, old: RewardModel) -> str | None:
    """Return how requests would be read otherwise, or None."""
    if new.max_input_tokens < old.max_input_tokens:
        return (
            f"they reach {new.max_input_tokens:,} tokens, requests may have "
            f"{old.max_input_tokens:,} (--max-input-tokens)"
        )
    # Clients keep token ids (POST /v1/tokenize), which must go on to mean the same texts.
    vocabularies = [one.chat.tokenizer.get_vocab() for one in (new, old)]
    if vocabularies[0] != vocabularies[1]:
        return "their tokenizer has another vocabulary than the one that is served"
    if new.chat.encode(_PROBE, _ANSWERS) != old.chat.encode(_PROBE, _ANSWERS):
        return "their chat template or tokenizer gives other token ids than what is served"
    return None
