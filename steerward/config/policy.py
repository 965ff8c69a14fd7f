"""Settings of the policies that are served, and the directions that have names."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from steerward.config.settings import Settings
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection


class PolicyConfig(Settings):
    """Which policies are served beside the reward models, and how much they take on."""

    reads_environment: ClassVar[bool] = True

    policy: list[str] = ["pocket-policy"]
    """Checkpoint folder, hub id (owner/name or owner/name@revision), `pocket-policy`, or the URL of
    an OpenAI-compatible server such as http://host:8000/v1; repeatable. `none` serves none."""
    policy_name: list[str] = []
    """Name to serve the policy under; give one for each --policy, in order. Default: the last
    component of the folder or id; of a server, the name of its model."""
    policy_api_key: SecretStr | None = None
    """Bearer key for policies on other servers. Prefer the environment: flags show in `ps`."""
    policy_model: str | None = None
    """Name of the model on the other server. Default: its only one."""
    conditioning: str | None = None
    """How policies read a direction: a rule's name, such as dpa-v1, or a JSON file with one.
    Default: what conditioning.json in the checkpoint says; without one, directions only select."""
    adapter: list[str] = []
    """LoRA adapter of the only --policy as NAME=FOLDER, served as a model of that name;
    repeatable."""
    profiles: dict[str, dict[str, float]] = {}
    """JSON object, or TOML tables such as [profiles.concise]: directions by a name that requests
    can give in place of the numbers."""
    policy_device: str = "auto"
    """Where policies compute: auto (CUDA where there is one), cpu, cuda or cuda:N."""
    policy_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of policies; auto is float32 on CPU; on CUDA float16 where the checkpoint says that it is
    stored so, else bfloat16."""
    policy_cache_bytes: int = Field(default=1024 * 1024 * 1024, ge=1)
    """Most memory, for each policy, for keys and values of the completions that are being drawn;
    it is taken at the start, but no more than --max-running-completions could ever use.
    Completions that find none left wait. If one of full length would not fit, the length limit is
    what fits."""
    max_running_completions: int = Field(default=32, ge=1)
    """Completions that one policy draws at once; further ones wait. Higher raises throughput, and
    the time between two tokens of each."""
    max_waiting_completions: int = Field(default=256, ge=1)
    """Completions that may wait for a place at one policy; requests beyond are refused with
    429."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longest completion, in tokens, also of requests that name no length; requests that ask for
    more are refused. Default: what the policy's length limit leaves."""
    generation_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds after which a completion that is not done ends with an error: 504, or an event in
    the stream."""

    @field_validator("policy")
    @classmethod
    def _none_is_alone(cls, policies: list[str]) -> list[str]:
        served = [source for source in policies if source not in ("", "none")]
        if served and len(served) < len(policies):
            raise ValueError(f"{policies}: give none alone, or only the policies to serve")
        return served

    @field_validator("adapter")
    @classmethod
    def _adapters_have_names(cls, adapters: list[str]) -> list[str]:
        names = [adapter.partition("=")[0] for adapter in adapters]
        for adapter, name in zip(adapters, names, strict=True):
            if not name or not adapter.partition("=")[2]:
                raise ValueError(f"{adapter!r} is no adapter; give NAME=FOLDER")
            if names.count(name) > 1:
                raise ValueError(f"two adapters are called {name!r}; give each its own name")
        return adapters

    @field_validator("profiles")
    @classmethod
    def _profiles_are_directions(
        cls, profiles: dict[str, dict[str, float]]
    ) -> dict[str, dict[str, float]]:
        for name, components in profiles.items():
            try:
                PreferenceDirection.from_mapping(components, param=name)
            except InvalidDirection as error:
                raise ValueError(f"profile {name!r}: {error.message}") from None
        return profiles

    @model_validator(mode="after")
    def _policies_fit(self) -> Self:
        if self.policy_name and len(self.policy_name) != len(self.policy):
            raise ValueError(
                f"{len(self.policy_name)} names for {len(self.policy)} policies; give one "
                "--policy-name for each --policy, in the same order, or none"
            )
        if self.adapter and len(self.policy) != 1:
            raise ValueError(
                f"adapters adapt the only policy, and there are {len(self.policy)}; serve one"
            )
        return self

    @property
    def adapter_folders(self) -> dict[str, Path]:
        """Folders of the adapters by name."""
        parts = (adapter.partition("=") for adapter in self.adapter)
        return {name: Path(folder) for name, _, folder in parts}
