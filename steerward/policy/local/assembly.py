"""From a request to prompts and samples: templates, lengths, defaults. No device, no threads."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from steerward.policy.generation import GenerationRequest, Prompt, Sampling
from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.policy.local.sampling import Draw, numbers_for
from steerward.policy.local.sequence import Job, Sample, SharedPrompt
from steerward.policy.local.text import TextStream
from steerward.protocol.errors import InputTooLong, InvalidRequest

# Of a prompt, what a text stream looks at: whether the completion's first word opens with a space.
_CONTEXT_TOKENS = 5


class Assembly:
    """What a checkpoint makes of requests.

    Args:
        checkpoint: Of the policy.
    """

    def __init__(self, checkpoint: LocalCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._decoder: Tokenizer = checkpoint.tokenizer.backend_tokenizer  # pyright: ignore

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of each prompt; equal ones are encoded once.

        Raises:
            InvalidRequest: If the template refuses the turns, or there is none.
            InputTooLong: If nothing could be drawn behind a prompt.
        """
        known: dict[int, list[int]] = {}
        encoded: list[list[int]] = []
        for prompt in prompts:
            if id(prompt) not in known:
                known[id(prompt)] = self._encode_one(prompt)
            encoded.append(known[id(prompt)])
        return encoded

    def prompts(
        self, job: Job, request: GenerationRequest, ids: Sequence[Sequence[int]]
    ) -> list[SharedPrompt]:
        """Return the distinct prompts of a request, each with its samples.

        Raises:
            InputTooLong: If prompt and completion would be longer than the policy reads.
        """
        shared: dict[tuple[int, ...], SharedPrompt] = {}
        for index, prompt_ids in enumerate(ids):
            key = tuple(prompt_ids)
            if key not in shared:
                shared[key] = SharedPrompt(job, list(key), [])
            sample = self._sample(job, index, request.sampling, shared[key].ids)
            shared[key].waiting.append(sample)
        return list(shared.values())

    def _encode_one(self, prompt: Prompt) -> list[int]:
        chat = self._checkpoint.chat
        if prompt.text is None and chat is None:
            raise InvalidRequest(
                "this policy has no chat template, so messages cannot be written for it; send "
                "text to /v1/completions, or add a chat_template.jinja to the checkpoint",
                param="messages",
            )
        if prompt.text is not None:
            ids = self._encode_text(prompt.text)
        else:
            assert chat is not None
            ids = chat.encode_prompt([dict(turn) for turn in prompt.messages])
        limit = self._checkpoint.max_positions
        if len(ids) >= limit:
            raise InputTooLong(
                f"the prompt has {len(ids):,} tokens and the policy reads {limit:,} with the "
                "completion; shorten it",
                param="prompt" if prompt.text is not None else "messages",
            )
        return ids

    def _encode_text(self, text: str) -> list[int]:
        chat = self._checkpoint.chat
        if chat is not None:
            ids = chat.encode_text(text)
        else:
            ids = self._checkpoint.tokenizer(text, split_special_tokens=True)["input_ids"]
        if not ids:
            raise InvalidRequest(
                "the prompt is empty and the tokenizer puts nothing before it; give some text",
                param="prompt",
            )
        return list(ids)

    def _sample(
        self, job: Job, index: int, sampling: Sampling, prompt_ids: Sequence[int]
    ) -> Sample:
        defaults = self._checkpoint.defaults
        temperature, top_p = sampling.temperature, sampling.top_p
        return Sample(
            job,
            index,
            Draw(
                temperature=defaults.temperature if temperature is None else temperature,
                top_p=defaults.top_p if top_p is None else top_p,
                presence_penalty=sampling.presence_penalty,
                frequency_penalty=sampling.frequency_penalty,
                top_logprobs=sampling.top_logprobs,
                numbers=numbers_for(sampling.seed, index),
            ),
            TextStream(self._decoder, prompt=prompt_ids[-_CONTEXT_TOKENS:], stop=sampling.stop),
            self._max_tokens(sampling, len(prompt_ids)),
            self._checkpoint.end_tokens,
            prompt_ids=prompt_ids,
        )

    def _max_tokens(self, sampling: Sampling, prompt_tokens: int) -> int:
        limit = self._checkpoint.max_positions
        left = limit - prompt_tokens
        wanted = sampling.max_tokens
        if wanted is None:
            return min(left, sampling.default_max_tokens or left)
        if wanted > left:
            raise InputTooLong(
                f"the prompt has {prompt_tokens:,} tokens and max_tokens is {wanted:,}, together "
                f"{prompt_tokens + wanted:,}, limit {limit:,}; ask for at most {left:,}",
                param="max_tokens",
            )
        return wanted
