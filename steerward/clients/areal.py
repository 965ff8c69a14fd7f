"""A reward function for AReaL's workflows.

AReaL gives a function 15 s an attempt, its own queue included, and takes 0 after four: keep the
deadline below, so that a failure is raised in place of that 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from steerward.clients._conversation import plain_prompt
from steerward.clients._markup import Template, rendered_prompt, without_end
from steerward.clients._rewards import Scorer, Settings, raising_scorer
from steerward.clients._samples import Sample, checked
from steerward.clients._wire import DEFAULT_BASE_URL

_DEADLINE_S = 12.0


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """Returns the score of one completion. Can be pickled, for AReaL's pool of processes."""

    scoring: Scorer
    template: Template | None

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
        plain = (
            rendered_prompt(prompt, template=self.template)
            if messages is None
            else plain_prompt(messages, param="messages")
        )
        return Sample(plain, without_end(completion))


def reward_function(
    url: str = DEFAULT_BASE_URL,
    *,
    template: Template | None = None,
    **settings: Unpack[Settings],
) -> RewardFunction:
    """Return what a workflow takes as `reward_fn`.

    Args:
        url: Where the server is.
        template: Which the policy's tokenizer applies, for rows without `messages`.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, and
            `deadline_s`, 12 s where it is not given.

    Raises:
        InvalidRequest: If `on_error` is not "raise": AReaL takes no None.
    """
    within: Settings = {"deadline_s": _DEADLINE_S, **settings}
    return RewardFunction(raising_scorer("AReaL", url, **within), template)
