"""From a request's items to token groups, on a small pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import SteerwardError
from steerward.protocol.scoring import ScoreItem


class TokenizerPool:
    """Encodes items beside the event loop and the device thread.

    Args:
        model: Its template, tokenizer and length limit are used, its weights are not.
        num_threads: Size of the pool.
    """

    def __init__(self, model: RewardModel, *, num_threads: int) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="steerward-tokenizer")

    async def encode(self, items: Sequence[ScoreItem]) -> list[list[Group]]:
        """Return the groups of each item: one as a rule.

        Raises:
            InvalidRequest: If the template refuses the turns of an item; its place is named.
            InputTooLong: If a candidate with its prompt is over the limit; its place is named.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._encode, list(items))

    def close(self) -> None:
        """Stop the threads; what they have begun is finished and dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _encode(self, items: Sequence[ScoreItem]) -> list[list[Group]]:
        return [self._encode_item(i, item) for i, item in enumerate(items)]

    def _encode_item(self, index: int, item: ScoreItem) -> list[Group]:
        context = [message.model_dump() for message in item.context]
        try:
            return group_conversations(self._model.encode(context, item.answers))
        except SteerwardError as error:
            raise placed(error, index, item) from error


def placed(error: SteerwardError, index: int, item: ScoreItem) -> SteerwardError:
    """Return an error of one item with its place in the request."""
    place = f"items[{index}]"
    if item.messages is not None:
        place += ".messages"
    elif error.param is not None:
        place += f".{error.param}"
    return type(error)(f"{place}: {error.message}", param=place, retry_after_s=error.retry_after_s)


def estimate_tokens(items: Sequence[ScoreItem]) -> int:
    """Return a guess of an unencoded request's tokens, for admission: four characters each."""
    characters = sum(
        sum(len(message.content) for message in item.context) + sum(map(len, item.answers))
        for item in items
    )
    return characters // 4
