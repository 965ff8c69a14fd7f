"""Settings: one frozen schema per command, filled from defaults, TOML files, environment, flags.

The help text of every flag is the docstring below its field. Unknown keys are refused in files
as on the command line. No environment variable is read anywhere else.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection

ENVIRONMENT_PREFIX = "STEERWARD_"
POSITIONAL = "positional"
"""Marks a field that is an argument of the command line and not a flag."""

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen, complete, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    reads_environment: ClassVar[bool] = False
    """Whether variables of the environment set the fields too: for what runs in containers."""


class EngineConfig(Settings):
    """How the scoring engine batches, and how much it takes on."""

    reads_environment: ClassVar[bool] = True

    device: str = "auto"
    """Where models compute: auto (CUDA where there is one), cpu, cuda or cuda:N."""
    devices: list[str] = []
    """Several devices in place of one: repeatable, such as cuda:0 and cuda:1, or all for every GPU
    that is visible. Each holds a copy of every model, with its own queue and tokenizer threads;
    requests of one prompt go to the same one while it has no more than a forward pass more to do
    than the others. Limits on queued tokens are for each."""
    dtype: Dtype = "auto"
    """Of the backbone; auto is float32 on CPU; on CUDA float16 where the checkpoint says that it
    is stored so, else bfloat16. int8 is for CPUs: linear layers with weights and inputs rounded to
    8 bits, faster where the processor multiplies such (AVX-512 VNNI); measure before you trust it.
    Heads are always float32."""
    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens that one forward pass aims at. Behind a prompt that takes more than half of them,
    candidates still share passes of up to half as many candidate tokens; one longer candidate
    runs alone. Higher raises throughput on a GPU, and peak memory. Default: 2048 on CPU, 32768
    on CUDA."""
    prefix_cache_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """Memory, for each model on each device, for keys and values of prompts seen before, so that
    further candidates of a prompt, or a longer conversation that begins with it, cost their own
    tokens only. The least recently used go first, before the prompts of a pass take their place;
    what the pass at hand works with comes on top. 0 turns it off. Scores do not depend on it,
    beyond the rounding of the dtype."""
    deterministic: bool = False
    """Give the same scores to the bit whatever else is scored with a text: each prompt and each
    candidate is then computed by itself. Slower, most of all for short texts; without it, scores
    agree to the rounding of the dtype."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt plus candidate, in tokens; longer ones are refused with 413, never cut.
    Default: what the positions of the model reach, which is also the most."""
    max_queued_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens that may wait for one device before requests are refused with 429. Requests that would
    miss their time-out, or make others miss theirs, are refused before: this bounds memory."""
    max_items: int = Field(default=1024, ge=1)
    """Most items in one request."""
    max_candidates: int = Field(default=1024, ge=1)
    """Most candidates in one request, over all its items."""
    tokenizer_threads: int = Field(default=2, ge=1, le=64)
    """Threads that apply templates and tokenise, beside the one that owns the device."""
    request_timeout_s: float = Field(default=120.0, gt=0)
    """Seconds after which a request that has no scores yet is answered with 504. One that is
    expected to take longer behind what waits is refused at once, with 429 and Retry-After."""

    @model_validator(mode="after")
    def _devices_fit(self) -> EngineConfig:
        if self.devices and self.device != "auto":
            raise ValueError(
                f"device {self.device!r} and devices {self.devices} are both given; leave one out"
            )
        if "all" in self.devices and len(self.devices) > 1:
            raise ValueError(f"devices {self.devices}: give all alone, or name each device")
        return self


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


class ServeConfig(PolicyConfig, EngineConfig):
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
    """Largest request body; larger ones are refused with 413 before they are read whole."""
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


def _from_json(value: object) -> object:
    """Return what a flag spells in JSON; files hold it as a table already."""
    return json.loads(value) if isinstance(value, str) else value


_Direction = Annotated[dict[str, float], BeforeValidator(_from_json)]


class ScoreFileConfig(EngineConfig):
    """Score a JSON-lines file without a server.

    Each input row is an item as in `POST /v1/score`: {"prompt": ..., "candidates": [...]} or
    {"messages": [...]} or {"tokens": {...}}, with an optional "id", a string or an integer, that
    comes back. Blank lines are skipped; each other line gives one output row, in order, and "row"
    counts them from 0. A bad row becomes a row with an "error" and the rest goes on. If the
    device fails, or the run is killed, run it again to go on where it stopped.

    Examples:
      steerward score in.jsonl out.jsonl
      steerward score in.jsonl out.jsonl --direction '{"helpfulness": 1, "verbosity": -1}'
    """

    source: Annotated[Path, POSITIONAL]
    """Input file, JSON lines in UTF-8."""
    target: Annotated[Path, POSITIONAL]
    """Output file, JSON lines; its progress is kept beside it until it is complete."""
    reward_model: str = "pocket"
    """Checkpoint folder, hub id (owner/name or owner/name@revision) or `pocket`."""
    weights: dict[str, float] | None = None
    """JSON object: weights by objective in place of the gates; adds `weighted_score`."""
    direction: dict[str, float] | None = None
    """JSON object: preference direction by objective; adds `direction_score`."""
    directions: tuple[_Direction, ...] | None = None
    """JSON object; repeatable, for several directions at once; adds `direction_scores`."""
    explain: bool = False
    """Add gates, coefficients, contributions and ratings."""
    overwrite: bool = False
    """Start over, replacing the output file."""
    max_queued_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens, roughly, of the rows that are read ahead of the device. No row is refused for it:
    reading waits. Lower saves memory; keep it at several times max_batch_tokens."""
    request_timeout_s: float = Field(default=math.inf, gt=0)
    """Seconds after which a row that has no scores yet ends the run; inf for no limit."""


def load_settings(
    schema: type[SettingsT],
    flags: Mapping[str, Any],
    *,
    files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> SettingsT:
    """Return settings from TOML files left to right, then environment, then flags.

    Raises:
        pydantic.ValidationError: If a value does not fit or a key is unknown.
        OSError: If a file cannot be read.
        ValueError: If a file is not TOML, or a variable that holds an object is not JSON.
    """
    values: dict[str, Any] = {}
    for path in files:
        with path.open("rb") as file:
            values.update(tomllib.load(file))
    values.update(_from_environment(schema, os.environ if environment is None else environment))
    values.update(flags)
    return schema.model_validate(values)


def _from_environment(schema: type[Settings], environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        text = environment.get(environment_name(name))
        if text is None or not schema.reads_environment:
            continue
        kind = str(field.annotation)
        if "list" in kind:
            found[name] = [part.strip() for part in text.split(",")]
        else:
            found[name] = json.loads(text) if "dict" in kind else text
    return found


def environment_name(field: str) -> str:
    """Return the environment variable of a field."""
    return ENVIRONMENT_PREFIX + field.upper()
