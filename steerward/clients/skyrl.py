"""An environment of one turn for SkyRL, whose reward is the score.

    from steerward.clients.skyrl import register
    register("steerward", "http://127.0.0.1:8000")

in the process that runs environments; then `environment.env_class=steerward`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from steerward.clients._conversation import PlainPrompt, plain_prompt
from steerward.clients._rewards import Scorer, Settings, raising_scorer
from steerward.clients._samples import Sample, checked
from steerward.clients._wire import DEFAULT_BASE_URL
from steerward.protocol.errors import InvalidRequest


def register(
    name: str = "steerward", url: str = DEFAULT_BASE_URL, **settings: Unpack[Settings]
) -> None:
    """Register the environment with skyrl_gym, which must be installed.

    Args:
        name: For `env_class`.
        url: Where the server is.
        settings: `model`, `weights` or `direction`, `api_key`, `timeout_s`, `deadline_s`.

    Raises:
        ImportError: If skyrl_gym is missing.
        InvalidRequest: If `on_error` is not "raise".
    """
    scoring = raising_scorer("SkyRL", url, **settings)
    gym: Any = importlib.import_module("skyrl_gym")
    text: Any = importlib.import_module("skyrl_gym.envs.base_text_env")
    # SkyRL wants its own base class, which we cannot name before it is there.
    kind = type("SteerwardEnvironment", (Environment, text.BaseTextEnv), {"scoring": scoring})
    gym.register(id=name, entry_point=kind)


class Environment:
    """Scores the one answer to a prompt."""

    scoring: Scorer

    def __init__(self, *args: Any, **more: Any) -> None:
        del args, more
        super().__init__()
        self._prompt: PlainPrompt = ""
        self._rewards: Mapping[str, float] = {}

    def init(self, prompt: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Keep the prompt; return it unchanged.

        Raises:
            InvalidRequest: If it is not text alone.
        """
        self._prompt = plain_prompt(prompt)
        return prompt, {}

    def step(self, action: str) -> dict[str, Any]:
        """Return the score of an answer as reward, and the end of the episode.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        if not self._prompt:
            raise InvalidRequest("step came before init, so there is no prompt to judge by")
        (found,) = checked(self.scoring.score([Sample(self._prompt, action)]))
        self._rewards = found.rewards
        return {"observations": [], "reward": found.score, "done": True, "metadata": {}}

    def get_metrics(self) -> dict[str, float]:
        """Return the objectives, which SkyRL averages and logs as `environment/<name>`."""
        return {f"objective/{name}": reward for name, reward in self._rewards.items()}
