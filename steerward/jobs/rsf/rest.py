"""A policy and a reward model behind a URL, as the loop asks them: our own HTTP surface.

Errors come back as the classes that the server raised, so the loop is as patient as at home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from steerward.clients._wire import client_headers
from steerward.jobs.rsf.ports import Completion, Generated, Sampling, Scored, Turns
from steerward.protocol.chat import ChatCompletion
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import (
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    brief,
    error_from_body,
)
from steerward.protocol.policies import PolicyCard
from steerward.protocol.scoring import ModelCard, ModelList, ScoreResponse

CardT = TypeVar("CardT", PolicyCard, ModelCard)

_TIMEOUT_S = 600.0


class Server:
    """One server; an async context manager.

    Args:
        url: Without ``/v1``.
        api_key: Sent as a bearer key, if the server wants one.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=client_headers(api_key),
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(max_connections=256),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Return an answer that is a success, read whole.

        Raises:
            SteerwardError: What the server answered in place of one.
            ConnectionFailed: If it did not answer.
        """
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ConnectionFailed(
                f"no answer from {self._url} ({type(error).__name__}); is the server running?"
            ) from error
        if response.is_success:
            return response
        try:
            found = response.json()
        except ValueError:
            found = None
        after = response.headers.get("retry-after", "")
        raise error_from_body(
            response.status_code,
            found,
            retry_after_s=float(after) if after.isdecimal() else None,
        )

    async def cards(self) -> list[ModelCard | PolicyCard]:
        """Return the cards of all models."""
        return ModelList.model_validate_json((await self.call("GET", "/v1/models")).content).data


class RestPolicy:
    """A policy of a server: what it is called now, and under which name new weights are served.

    Args:
        server: That serves it.
        card: Of the policy to begin with.
        name: Of what comes of it.
    """

    def __init__(self, server: Server, card: PolicyCard, *, name: str) -> None:
        if card.conditioning is None:
            raise InvalidRequest(
                f"{card.id!r} reads no directions; serve it with --conditioning", param="model"
            )
        self._server = server
        self._rule = card.conditioning
        # A variant is served beside the policy that it came of, and so is what comes of it.
        self._parent = card.parent or card.id
        self.name = name
        self._model = card.id

    @property
    def rule(self) -> ConditioningRule:
        """How it reads a direction."""
        return self._rule

    async def check_name(self) -> None:
        """Refuse a name that would put another model's weights out of service.

        Raises:
            InvalidRequest: If the server has a model of that name that does not come of the policy.
        """
        for card in await self._server.cards():
            is_ours = isinstance(card, PolicyCard) and card.parent == self._parent
            if card.id == self.name and (not is_ours or card.id == self._model):
                raise InvalidRequest(
                    f"{self.name!r} is the name of another model of the server, or of the one to "
                    "begin with; give another --name",
                    param="name",
                )

    async def generate(
        self,
        messages: Turns,
        *,
        direction: PreferenceDirection,
        num: int,
        sampling: Sampling,
    ) -> Generated:
        """Draw completions for a prompt, conditioned on a direction.

        Raises:
            SteerwardError: Why there are none.
        """
        body = {
            "model": self._model,
            "messages": [dict(turn) for turn in messages],
            "direction": dict(direction.components),
            "steering": "prompt",
            "reward": False,
            "n": num,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        response = await self._server.call("POST", "/v1/chat/completions", body)
        answer = ChatCompletion.model_validate_json(response.content)
        found = [
            # Only the sum is told, which is enough where there is one.
            Completion(
                choice.message.content,
                answer.usage.completion_tokens if num == 1 else None,
                choice.finish_reason == "stop",
            )
            for choice in answer.choices
        ]
        return Generated(
            found, answer.usage.completion_tokens, response.headers.get("x-weight-version", "")
        )

    async def publish(self, folder: Path, kind: Literal["full", "lora"]) -> str:
        """Serve weights or an adapter from now on, and return their version.

        Raises:
            SteerwardError: If the server refuses them; the old ones go on being served.
        """
        del kind  # The folder shows it.
        body = {"id": self.name, "parent": self._parent, "path": str(folder)}
        answer = (await self._server.call("POST", "/v1/models", body)).content
        self._model = self.name
        return PolicyCard.model_validate_json(answer).weight_version


class RestRewards:
    """A reward model of a server.

    Args:
        server: That serves it.
        card: Of the reward model.
    """

    def __init__(self, server: Server, card: ModelCard) -> None:
        self._server = server
        self._card = card

    @property
    def name(self) -> str:
        """Under which it is served."""
        return self._card.id

    @property
    def objectives(self) -> Sequence[str]:
        """Names of its rewards."""
        return [objective.name for objective in self._card.objectives]

    @property
    def reference(self) -> Mapping[str, tuple[float, float]] | None:
        """Mean and spread of each objective over its reference set; None if not known."""
        found: dict[str, tuple[float, float]] = {}
        for objective in self._card.objectives:
            if objective.reference_mean is None or objective.reference_std is None:
                return None
            found[objective.name] = (objective.reference_mean, objective.reference_std)
        return found

    async def score(self, messages: Turns, completions: Sequence[str]) -> Scored:
        """Score completions of one prompt.

        Raises:
            SteerwardError: Why there are no rewards.
        """
        item = {"prompt": [dict(turn) for turn in messages], "candidates": list(completions)}
        body = {"model": self.name, "items": [item]}
        response = await self._server.call("POST", "/v1/score", body)
        answer = ScoreResponse.model_validate_json(response.content)
        candidates = answer.items[0].candidates
        return Scored(
            [candidate.rewards for candidate in candidates],
            [candidate.score for candidate in candidates],
            answer.weight_version,
        )


async def policy_and_rewards(
    server: Server, *, model: str | None, reward_model: str | None
) -> tuple[PolicyCard, ModelCard]:
    """Return the cards of a policy and a reward model of a server: those named, or its only ones.

    Raises:
        NotFound: If there is none.
        InvalidRequest: If there are several, and none is named.
    """
    cards = await server.cards()
    policies = [card for card in cards if isinstance(card, PolicyCard)]
    rewards = [card for card in cards if isinstance(card, ModelCard)]
    # What was made of a policy, perhaps by this very run, is begun with only if it is named.
    started = policies if model is not None else [one for one in policies if one.parent is None]
    return (
        _named(started, model, "policy", "--model"),
        _named(rewards, reward_model, "reward model", "reward_model in --rsf"),
    )


def _named(cards: Sequence[CardT], name: str | None, what: str, option: str) -> CardT:
    found = [card for card in cards if name in (None, card.id)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(card.id for card in cards) or "none"
    if found:
        raise InvalidRequest(f"the server has several of kind {what}: {known}; name one: {option}")
    wanted = f"{what} {brief(name)!r}" if name is not None else what
    raise NotFound(f"the server has no {wanted}; known: {known}")
