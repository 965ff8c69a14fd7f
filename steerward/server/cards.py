"""What the server tells of its models: those that score, and those that generate."""

from __future__ import annotations

from contextlib import suppress

from steerward.policy.steering import SteeredPolicy
from steerward.protocol.errors import NotFound, brief
from steerward.protocol.policies import PolicyCard, Steering
from steerward.protocol.scoring import ModelCard
from steerward.server.state import ServerState


def model_cards(state: ServerState) -> list[ModelCard | PolicyCard]:
    """Return the cards of all models, reward models first, each policy before its variants."""
    cards: list[ModelCard | PolicyCard] = [engine.card() for engine in state.engines.values()]
    for steered in state.policies.values():
        for variant in (None, *steered.policy.variants):
            # Another thread may drop one between the two looks.
            with suppress(NotFound):
                cards.append(_policy_card(steered, variant, list(state.engines)))
    return cards


def model_card(state: ServerState, name: str) -> ModelCard | PolicyCard:
    """Return the card of one model.

    Raises:
        NotFound: If there is none of that name.
    """
    generating = state.generating
    if name in generating:
        return _policy_card(*generating[name], list(state.engines))
    if name in state.engines:
        return state.engines[name].card()
    known = ", ".join([*state.engines, *generating])
    raise NotFound(f"there is no model {brief(name)!r} here; known: {known}", param="model")


def _policy_card(
    steered: SteeredPolicy, variant: str | None, reward_models: list[str]
) -> PolicyCard:
    card = steered.policy.card(variant)
    steering: list[Steering] = ["auto"]
    if card.conditioning is not None:
        steering.append("prompt")
    if reward_models:
        steering.append("best_of")
    if card.conditioning is not None and reward_models:
        steering.append("neighbours")
    return card.model_copy(update={"steering": steering, "reward_models": reward_models})
