"""From a request's items to token groups, on a small pool of threads, and to their ids."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

from steerward.models.chat import EncodedConversation
from steerward.models.packing import Group, group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InvalidRequest, NotReady, SteerwardError
from steerward.protocol.items import ScoreItem, TextItem


class TokenizerPool:
    """Encodes items beside the event loop and the device thread.

    Args:
        model: Its template, tokenizer and length limit are used, its weights are not.
        num_threads: Size of the pool.
    """

    def __init__(self, model: RewardModel, *, num_threads: int) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="steerward-tokenizer")
        self._counting = threading.Lock()
        self._pending_tokens = 0

    @property
    def pending_tokens(self) -> int:
        """A guess of the tokens that wait for a thread or keep one busy."""
        return self._pending_tokens

    async def encode(self, items: Sequence[TextItem]) -> list[list[Group]]:
        """Return the groups of each item: one as a rule.

        A caller who is cancelled leaves its thread busy until the candidate at hand is encoded;
        so long its tokens are pending.

        Raises:
            InvalidRequest: If the template refuses the turns of an item, or the model its ids;
                the place is named.
            InputTooLong: If a candidate with its prompt is over the limit; its place is named.
            NotReady: If the pool is closed before a thread took the items.
        """
        estimate = estimate_tokens(items)
        is_abandoned = threading.Event()
        job = self._pool.submit(self._encode, list(items), is_abandoned)
        self._add_pending(estimate)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            # The job was cancelled and not its caller.
            raise NotReady("the server is shutting down", retry_after_s=5.0) from None
        finally:
            is_abandoned.set()
            # Here and now, unless the job outlives its caller.
            job.add_done_callback(lambda _: self._add_pending(-estimate))

    def close(self) -> None:
        """Stop the threads; what they have begun is finished, the rest gets `NotReady`."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _add_pending(self, tokens: int) -> None:
        with self._counting:
            self._pending_tokens += tokens

    def _encode(
        self, items: Sequence[TextItem], is_abandoned: threading.Event
    ) -> list[list[Group]]:
        return [self._encode_item(i, item, is_abandoned) for i, item in enumerate(items)]

    def _encode_item(
        self, index: int, item: TextItem, is_abandoned: threading.Event
    ) -> list[Group]:
        context = [message.model_dump() for message in item.context]
        conversations: list[EncodedConversation] = []
        try:
            if isinstance(item, ScoreItem) and item.tokens is not None:
                return [self._model.group_tokens(item.tokens)]
            for conversation in self._model.encode_each(context, item.answers):
                if is_abandoned.is_set():
                    raise CancelledError
                conversations.append(conversation)
        except SteerwardError as error:
            raise placed(error, index, item) from error
        return group_conversations(conversations)


def placed(error: SteerwardError, index: int, item: TextItem) -> SteerwardError:
    """Return an error of one item with its place in the request."""
    place = f"items[{index}]"
    if isinstance(item, ScoreItem) and item.tokens is not None:
        place += ".tokens"
    if item.messages is not None:
        place += ".messages"
    elif error.param is not None:
        place += f".{error.param}"
    return type(error)(f"{place}: {error.message}", param=place, retry_after_s=error.retry_after_s)


def estimate_tokens(items: Sequence[TextItem]) -> int:
    """Return a guess of a request's tokens, for admission: of text, four characters each."""
    characters = tokens = 0
    for item in items:
        if isinstance(item, ScoreItem) and item.tokens is not None:
            tokens += len(item.tokens.prompt) + sum(map(len, item.tokens.candidates))
        else:
            characters += sum(len(message.content) for message in item.context)
            characters += sum(map(len, item.answers))
    return tokens + characters // 4


def tokens_of(model: RewardModel, index: int, groups: Sequence[Group]) -> dict[str, Any]:
    """Return the ids of one item in the shape of `TokenizedItem`.

    Raises:
        InvalidRequest: If its candidates share no prompt that holds the token the gate reads, so
            that they are no item in ids.
    """
    group = groups[0]
    has_position = group.gating_position < len(group.prefix)
    if len(groups) > 1 or (model.gate_reads_prompt and not has_position):
        raise InvalidRequest(
            f"items[{index}]: the chat template renders the prompt differently for different "
            "candidates, or adds nothing to an empty one, so no ids are theirs in common; send "
            "each candidate as an item of its own, and no empty one",
            param=f"items[{index}]",
        )
    candidates = [list(suffix) for suffix in group.suffixes]
    tokens: dict[str, Any] = {"prompt": list(group.prefix), "candidates": candidates}
    # Also where no gate reads it: prompts meet in a batch if their positions are the same too.
    if has_position:
        tokens["gating_position"] = group.gating_position
    return {
        "index": index,
        "tokens": tokens,
        "prompt_tokens": len(group.prefix),
        "candidate_tokens": [len(suffix) for suffix in group.suffixes],
    }
