"""What a server needs of a model, be it on one device or on several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from steerward.engine.arrays import ScoredArrays
from steerward.models.reward_model import RewardModel
from steerward.protocol.scoring import ModelCard, ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest


@dataclass(frozen=True, slots=True)
class Scored:
    """What a request was scored with, and the time it took, by stage, in seconds."""

    arrays: ScoredArrays
    stages: dict[str, float]

    @property
    def weight_version(self) -> str:
        """Of the weights that scored it, whatever has taken over since."""
        return self.arrays.summary["weight_version"]

    @property
    def answer(self) -> dict[str, Any]:
        """The answer by name.

        Raises:
            NonFiniteScore: If a rating is not finite.
        """
        return self.arrays.by_name()


class ServedModel(Protocol):
    """A reward model under its name, with what computes it."""

    @property
    def name(self) -> str:
        """Under which it is served."""
        ...

    @property
    def model(self) -> RewardModel:
        """The reward model, for what needs no device; of several equal ones, the first."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        ...

    @property
    def reason(self) -> str:
        """Why requests are not taken, or not on every device; empty if all is well."""
        ...

    @property
    def weight_version(self) -> str:
        """Identity of the weights that give the scores."""
        ...

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, with a guess for texts that are being tokenised."""
        ...

    def card(self) -> ModelCard:
        """Return what clients may know of the model and its queue."""
        ...

    def start(self) -> None:
        """Start to warm up."""
        ...

    async def wait_until_ready(self) -> None:
        """Return when it is warm, everywhere that it comes to that.

        Raises:
            NotReady: If it cannot be.
        """
        ...

    async def score(self, request: ScoreRequest) -> Scored:
        """Return the answer of a request.

        Raises:
            SteerwardError: Why there is none.
        """
        ...

    async def tokenize(self, request: TokenizeRequest) -> dict[str, Any]:
        """Return the token ids of a request's items, as `score` would read them.

        Raises:
            SteerwardError: Why there are none.
        """
        ...

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        ...

    def close(self) -> None:
        """Answer what still waits with `NotReady` and stop all threads."""
        ...
