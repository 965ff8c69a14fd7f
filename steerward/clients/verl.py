"""Reward functions and a reward manager for verl, loaded by path: `pkg://steerward.clients.verl`.

verl does not tell a reward function the prompt: either the dataset puts it under `prompt` into
`extra_info`, or the manager is used, which reads verl's own `raw_prompt`. Every answer has the
same keys, as verl wants: it reads them off the first sample of a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from steerward.clients._conversation import plain_prompt
from steerward.clients._rewards import Scorer, Settings, raising_scorer
from steerward.clients._samples import Sample, Scored, checked
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> dict[str, float]:
    """Return the score of one solution under `score`, and each objective under its name.

    Args:
        data_source: Not read, like `ground_truth`: verl passes both.
        solution_str: The answer.
        ground_truth: See `data_source`.
        extra_info: With the `prompt`, as messages or text.
        reward_kwargs: `url`, `model`, `weights` or `direction`, `api_key`, `timeout_s` and
            `deadline_s`; verl takes them from
            `reward.custom_reward_function.reward_kwargs`. What else verl passes is not read.

    Raises:
        InvalidRequest: If there is no prompt.
        SteerwardError: What the server or the connection failed with.
    """
    return compute_scores(
        [data_source], [solution_str], [ground_truth], [extra_info], **reward_kwargs
    )[0]


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> dict[str, float]:
    """Return what `compute_score` does; the form to prefer, since verl has many calls in flight.

    Raises:
        InvalidRequest: If there is no prompt.
        SteerwardError: What the server or the connection failed with.
    """
    del data_source, ground_truth
    scoring = _scorer(reward_kwargs)
    return _answer(await scoring.score_async([_sample(solution_str, extra_info)]))[0]


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    **reward_kwargs: Any,
) -> list[dict[str, float]]:
    """Return what `compute_score` does, for a batch in one request: verl's batch manager.

    Raises:
        InvalidRequest: If there is no prompt.
        SteerwardError: What the server or the connection failed with.
    """
    del data_sources, ground_truths
    scoring = _scorer(reward_kwargs)
    samples = [
        _sample(solution, extra) for solution, extra in zip(solution_strs, extra_infos, strict=True)
    ]
    return _answer(scoring.score(samples))


class SteerwardRewardManager:
    """A reward manager that verl loads by `source=importlib`; it needs nothing in the dataset.

    Its settings are `reward.custom_reward_function.reward_kwargs`, as for the functions.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **more: Any) -> None:
        del compute_score, more  # verl makes them from the same settings.
        custom = config.reward.custom_reward_function
        self._scoring = _scorer(custom.get("reward_kwargs") or {})
        self._tokenizer = tokenizer

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Return the reward of the last sequence of a sample, with all objectives.

        Raises:
            InvalidRequest: If the prompt is not text alone, or the response is not all of the
                policy.
            SteerwardError: What the server or the connection failed with.
        """
        item = data[-1:][0]
        responses = item.batch["responses"]
        num_valid = item.batch["attention_mask"][-responses.shape[-1] :].sum()
        _check_is_of_policy(item.batch, num_valid)
        prompt = item.non_tensor_batch.get("raw_prompt")
        if prompt is None:
            raise _no_prompt("raw_prompt of the sample; set data.return_raw_chat=True")
        decoded = await asyncio.to_thread(
            self._tokenizer.decode, responses[:num_valid], skip_special_tokens=True
        )
        sample = Sample(plain_prompt(prompt, param="raw_prompt"), decoded)
        (answer,) = _answer(await self._scoring.score_async([sample]))
        return {"reward_score": answer["score"], "reward_extra_info": answer}

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: Sequence[float]) -> Any:
        """Return rewards a token: each score at the last token of its response, zeros before."""
        prompt_length = data.batch["prompts"].size(1)
        num_valid = data.batch["attention_mask"][:, prompt_length:].sum(dim=1)
        rewards = data.batch["responses"].new_zeros(data.batch["responses"].shape).float()
        for row, (last, score) in enumerate(zip(num_valid.tolist(), scores, strict=True)):
            rewards[row, last - 1] = score
        return rewards


def _scorer(reward_kwargs: Mapping[str, Any]) -> Scorer:
    # verl passes more than was set: a router's address and a tokenizer, which are not for us.
    names = Settings.__annotations__
    settings: Any = {name: reward_kwargs[name] for name in reward_kwargs if name in names}
    return raising_scorer("verl", reward_kwargs.get("url", DEFAULT_BASE_URL), **settings)


def _sample(solution: str, extra_info: Mapping[str, Any] | None) -> Sample:
    prompt = (extra_info or {}).get("prompt")
    if prompt is None:
        raise _no_prompt(
            "extra_info: verl passes none; put it there as extra_info['prompt'] when the dataset "
            "is written, or use SteerwardRewardManager"
        )
    return Sample(plain_prompt(prompt, param="extra_info.prompt"), solution)


def _check_is_of_policy(batch: Any, num_valid: Any) -> None:
    mask = batch.get("response_mask", None)
    num_foreign = 0 if mask is None else int((mask[:num_valid] == 0).sum())
    if num_foreign:
        raise InvalidRequest(
            f"response_mask is 0 for {num_foreign} of {int(num_valid)} tokens of the response: "
            "they are of tools or of a user and must not be scored as the policy's answer; use "
            "rollouts of one turn without tools",
            param="response_mask",
        )


def _no_prompt(place: str) -> InvalidRequest:
    return InvalidRequest(f"there is no prompt in {place}", param="extra_info.prompt")


def _answer(scored: Sequence[Scored | None]) -> list[dict[str, float]]:
    # The score last: an objective of that name is the score of a model with one objective.
    return [{**found.rewards, "score": found.score} for found in checked(scored)]
