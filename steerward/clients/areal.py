"""A reward function for AReaL's workflows.

AReaL gives a function 15 s an attempt, its own queue included, and takes 0 after four: keep the
deadline below, so that a failure of a call that runs is raised in place of that 0.

A call that spends its 15 s waiting for AReaL's pool of processes never comes here: AReaL makes a
silent 0 of it, which no function can prevent. The pool has half the cores of each device; give it
as many workers as answers may wait at once, `AsyncRewardWrapper(function, max_workers=64)` as the
workflow's `async_reward_fn`, and watch AReaL's log for time-outs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from steerward.clients._conversation import plain_prompt
from steerward.clients._rewards import Scorer, Settings, raising_scorer
from steerward.clients._samples import Sample, checked, sample_of
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.transcripts import TemplateName, read_conversation, without_leftovers

_DEADLINE_S = 12.0


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """Returns the score of one completion. Can be pickled, for AReaL's pool of processes."""

    scoring: Scorer
    template: TemplateName | None

    def __call__(
        self, prompt: str, completions: str, prompt_ids: Any, completion_ids: Any, **row: Any
    ) -> float:
        """Return the score; the row's `messages` are the prompt where it has them.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        del prompt_ids, completion_ids  # The policy's, which mean nothing to the reward model.
        return checked(self.scoring.score([self._sample(prompt, completions, row)]))[0].score

    def _sample(self, prompt: str, completion: str, row: Mapping[str, Any]) -> Sample:
        messages = row.get("messages")
        if messages is None:
            item = read_conversation(
                prompt + completion, place="prompt", template=self.template, prompt=prompt
            )
            return sample_of(item)
        answer = without_leftovers(completion, self.template)
        return Sample(plain_prompt(messages, param="messages"), answer)


def reward_function(
    url: str = DEFAULT_BASE_URL,
    *,
    template: TemplateName | None = None,
    **settings: Unpack[Settings],
) -> RewardFunction:
    """Return what a workflow takes as `reward_fn`.

    Args:
        url: Where the server is.
        template: Which the policy's tokenizer applies, for rows without `messages`; None: the
            one that a prompt begins with; "none" for plain text.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, and
            `deadline_s`, 12 s where it is not given.

    Raises:
        InvalidRequest: If `on_error` is not "raise": AReaL takes no None.
    """
    within: Settings = {"deadline_s": _DEADLINE_S, **settings}
    return RewardFunction(raising_scorer("AReaL", url, **within), template)
