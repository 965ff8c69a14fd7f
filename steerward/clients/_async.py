"""The asynchronous client: transport and sleep; every decision is in `_wire`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType

import httpx

from steerward.clients import _wire
from steerward.clients._wire import AnswerT, Call, Item, Prompt
from steerward.clients.arrays import ScoreArrays
from steerward.protocol.errors import SteerwardError
from steerward.protocol.policies import PolicyCard
from steerward.protocol.scoring import ModelCard, ScoreResponse
from steerward.protocol.tokenization import TokenizeResponse


class AsyncClient:
    """Talks to a Steerward server from asynchronous code.

    Overload and lost connections are retried with growing pauses, or after as long as the
    server asks. Scoring changes nothing on the server, so a retry is always safe.

    Args:
        base_url: Where the server is.
        api_key: Sent as a bearer key, if the server wants one.
        timeout_s: Longest wait for an answer, an attempt; longer where a call allows the server
            more.
        max_retries: Attempts after the first.
        transport: Of httpx, to be used instead of the network.

    Raises:
        InvalidRequest: If no header can carry the key.

    Example:
        >>> async with AsyncClient() as client:
        ...     answer = await client.score("Explain rainbows.", ["Light splits in drops.", "No."])
        >>> answer.items[0].candidates[0].score
    """

    def __init__(
        self,
        base_url: str = _wire.DEFAULT_BASE_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._retry = _wire.Retry(max_retries)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=_wire.client_headers(api_key),
            transport=transport,
        )

    async def score(
        self,
        prompt: Prompt,
        candidates: Sequence[str],
        *,
        model: str | None = None,
        weights: Mapping[str, float] | None = None,
        direction: Mapping[str, float] | None = None,
        directions: Sequence[Mapping[str, float]] | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> ScoreResponse:
        """Score the candidates of one prompt.

        Args:
            prompt: A string (one user turn), or messages that end with a user or tool turn.
            candidates: Answers to it.
            model: Name of the reward model; may be left out where the server has one.
            weights: Non-negative numbers by objective in place of the gates.
            direction: Preference direction by objective; brought to norm 1 by the server.
            directions: Several of them at once.
            explain: Ask for gates, coefficients, contributions and ratings.
            timeout_s: Longest time the server may take.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self.score_items(
            [_wire.prompt_item(prompt, candidates)],
            model=model,
            weights=weights,
            direction=direction,
            directions=directions,
            explain=explain,
            timeout_s=timeout_s,
        )

    async def score_items(
        self,
        items: Sequence[Item],
        *,
        model: str | None = None,
        weights: Mapping[str, float] | None = None,
        direction: Mapping[str, float] | None = None,
        directions: Sequence[Mapping[str, float]] | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> ScoreResponse:
        """Score several prompts, or whole conversations, in one request.

        Args:
            items: Each with ``prompt`` and ``candidates``, with ``messages``, or with ``tokens``:
                ids, as `tokenize` gives them.
            model: As for `score`, like all further arguments.
            weights: See `score`.
            direction: See `score`.
            directions: See `score`.
            explain: See `score`.
            timeout_s: See `score`.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        call = _wire.score_call(
            items,
            model=model,
            weights=weights,
            direction=direction,
            directions=directions,
            explain=explain,
            timeout_s=timeout_s,
        )
        return await self._run(call)

    async def score_arrays(
        self,
        items: Sequence[Item],
        *,
        model: str | None = None,
        weights: Mapping[str, float] | None = None,
        direction: Mapping[str, float] | None = None,
        directions: Sequence[Mapping[str, float]] | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> ScoreArrays:
        """Score several prompts, and get numpy arrays in place of mappings by name.

        The numbers are those of `score_items`, without the cost of JSON. Needs the extra
        `arrays`.

        Args:
            items: As for `score_items`.
            model: As for `score`, like all further arguments.
            weights: See `score`.
            direction: See `score`.
            directions: See `score`.
            explain: Ask for gates and coefficients.
            timeout_s: See `score`.

        Raises:
            ImportError: If numpy or safetensors are missing.
            SteerwardError: What the server or the connection failed with.
        """
        call = _wire.arrays_call(
            items,
            model=model,
            weights=weights,
            direction=direction,
            directions=directions,
            explain=explain,
            timeout_s=timeout_s,
        )
        return await self._run(call)

    async def tokenize(
        self, prompt: Prompt, candidates: Sequence[str], *, model: str | None = None
    ) -> TokenizeResponse:
        """Return the token ids of the candidates of one prompt.

        Its items go to `score_items` or `score_arrays` in place of the text, with the same scores.

        Args:
            prompt: A string (one user turn), or messages that end with a user or tool turn.
            candidates: Answers to it.
            model: Name of the reward model; may be left out where the server has one.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self.tokenize_items([_wire.prompt_item(prompt, candidates)], model=model)

    async def tokenize_items(
        self, items: Sequence[Item], *, model: str | None = None
    ) -> TokenizeResponse:
        """Return the token ids of several prompts, or whole conversations.

        Args:
            items: Each with ``prompt`` and ``candidates``, or with ``messages``.
            model: See `tokenize`.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self._run(_wire.tokenize_call(items, model=model))

    async def models(self) -> list[ModelCard]:
        """Return the reward models of the server.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self._run(_wire.models_call())

    async def policies(self) -> list[PolicyCard]:
        """Return the policies of the server and their variants.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self._run(_wire.policies_call())

    async def model(self, name: str) -> ModelCard:
        """Return one reward model of the server.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return await self._run(_wire.model_call(name))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, call: Call[AnswerT]) -> AnswerT:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._send(call)
            except SteerwardError as error:
                delay_s = self._retry.delay_s(error, attempt)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    async def _send(self, call: Call[AnswerT]) -> AnswerT:
        try:
            response = await self._http.request(
                call.method,
                call.path,
                content=call.content,
                headers=call.headers,
                timeout=call.attempt_timeout(self._timeout_s),
            )
        except httpx.HTTPError as error:
            raise _wire.connection_error(self._base_url, error) from error
        return _wire.read_answer(call, response)

    async def __aenter__(self) -> AsyncClient:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()
