"""Settings of `steerward serve`."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from steerward.config.compat import CompatConfig
from steerward.config.engine import EngineConfig
from steerward.config.jobs import JobsConfig
from steerward.config.settings import environment_name


class ServeConfig(JobsConfig, CompatConfig, EngineConfig):
    """Serve reward models and policies over HTTP.

    Without arguments it serves `pocket` and `pocket-policy`, the small reward model and the small
    steerable policy that ship with the package.

    Examples:
      steerward serve
      steerward serve --reward-model RLHFlow/ArmoRM-Llama3-8B-v0.1 --name armorm --policy none
      steerward serve --policy RLHFlow/DPA-v1-Mistral-7B --conditioning dpa-v1
      steerward serve --policy http://127.0.0.1:9000/v1 --policy-model llama
      steerward serve --reward-model ./small --reward-model ./large --port 9000
      steerward serve --devices cuda:0 --devices cuda:1
      STEERWARD_API_KEY=secret steerward serve --host 0.0.0.0
    """

    reward_model: list[str] = Field(default=["pocket"], min_length=1)
    """Checkpoint folder, hub id (owner/name or owner/name@revision) or `pocket`; repeatable."""
    name: list[str] = []
    """Name to serve the reward model under; give one for each --reward-model, in order. Default:
    the last component of the folder or id."""
    host: str = "127.0.0.1"
    """Address to listen on. Use 0.0.0.0 to be reached from other machines, with an API key."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    api_key: list[SecretStr] = []
    """Bearer key that clients must send; repeatable. Prefer the environment, where commas separate
    several keys: flags show in `ps`. A blank key is refused, so that a variable left empty by
    mistake does not open the server; unset it to serve without keys."""
    public_metrics: bool = False
    """Leave /metrics open when API keys are set."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """Largest request body; larger ones are refused with 413 before they are read whole. Uploaded
    files have a limit of their own."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """Seconds that requests in flight get to finish after SIGTERM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages to log. Prompts and candidates are never logged."""
    log_format: Literal["text", "json"] = "text"
    """One line of text, or of JSON, for each message."""

    @field_validator("api_key")
    @classmethod
    def _keys_are_not_blank(cls, keys: list[SecretStr]) -> list[SecretStr]:
        if not all(key.get_secret_value().strip() for key in keys):
            raise ValueError(
                "a key is blank, which protects nothing; give a key, or leave the setting and "
                f"{environment_name('api_key')} unset to serve without keys"
            )
        return keys

    @model_validator(mode="after")
    def _names_fit(self) -> ServeConfig:
        if self.name and len(self.name) != len(self.reward_model):
            raise ValueError(
                f"{len(self.name)} names for {len(self.reward_model)} reward models; give one "
                "--name for each --reward-model, in the same order, or none"
            )
        return self

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach the server."""
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"
