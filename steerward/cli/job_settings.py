"""Settings of ``steerward jobs ...`` and ``steerward files ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from steerward.config import POSITIONAL, Settings
from steerward.protocol.fine_tuning import JobMethod

DEFAULT_SERVER = "http://127.0.0.1:8000"


class ServerSettings(Settings):
    """Which server to talk to."""

    reads_environment: ClassVar[bool] = True

    server: str = DEFAULT_SERVER
    """URL of the server."""
    api_key: SecretStr | None = None
    """Bearer key of the server. Prefer the environment: flags show in `ps`."""

    @field_validator("server")
    @classmethod
    def _is_a_url(cls, server: str) -> str:
        if not server.startswith(("http://", "https://")):
            raise ValueError(f"give a URL with http:// or https://, such as {DEFAULT_SERVER}")
        return server.rstrip("/").removesuffix("/v1").rstrip("/")

    @property
    def key(self) -> str | None:
        """The key in clear, for the header."""
        return None if self.api_key is None else self.api_key.get_secret_value()


class JobCreateConfig(ServerSettings):
    """Start fine-tuning of a policy of the server, by rejection sampling or another method.

    rsf: the policy samples completions of the prompts under preference directions, the reward
    model scores them, the best are kept, the policy is fine-tuned on them, and the new weights are
    served; then again. pama, grpo, cgpo: the policy is trained on several rewards of its own
    completions. modpo: on preferences, with other rewards as margins. mapl: on preferences, and on
    what is built of them with instructions. Each row of PROMPTS_FILE is {"prompt": "..."} or
    {"messages": [...]} that end with a user turn; for modpo and mapl with "chosen" and "rejected"
    beside it.

    Settings without a flag here go into --settings, or into a table [settings] of a --config file;
    `steerward jobs show` lists all of them with the values that a job uses. Nothing is uploaded
    before they have been checked.

    Examples:
      steerward jobs create prompts.jsonl
      steerward jobs create prompts.jsonl --iterations 5 --candidates-per-prompt 16 --seed 1
      steerward jobs create prompts.jsonl --validation-file held-out.jsonl --suffix concise
      steerward jobs create prompts.jsonl --rsf '{"temperature": 0.9, "selection": "top_k",
        "top_k": 2, "training": {"method": "lora", "learning_rate": 1e-4}}'
      steerward jobs create prompts.jsonl --config rsf.toml --no-watch
      steerward jobs create prompts.jsonl --method pama --settings
        '{"weights": {"helpfulness": 1, "verbosity": -0.5}, "steps": 200}'
      steerward jobs create pairs.jsonl --method modpo --settings '{"margins": {"safety": 1}}'
      steerward jobs create file-0123456789abcdef --model pocket-policy
    """

    prompts_file: Annotated[str, POSITIONAL]
    """File of prompts, or for modpo and mapl of preferences, JSON lines in UTF-8; or the id of one
    that was uploaded before."""
    method: JobMethod = "rsf"
    """How the policy is trained."""
    settings: dict[str, Any] | None = None
    """JSON object, or TOML table [settings]: any settings of the method by name. Flags win over
    it."""
    model: str | None = None
    """Policy to start from, or what an earlier job made of one. Default: the only policy that the
    server was started with."""
    validation_file: str | None = None
    """File of the same kind, or id of one, that the policy is measured on. Default: rows held out
    from PROMPTS_FILE."""
    suffix: str | None = None
    """Part of the new policy's name: letters, digits, dots, dashes and underscores."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Of everything that is drawn; the same seed gives the same samples. Default: 0."""
    iterations: int | None = None
    """Of rsf: times that sampling, scoring, selection and fine-tuning follow each other. More
    steer further, and take as much longer."""
    prompts_per_iteration: int | None = None
    """Of rsf: prompts drawn from the file for each iteration."""
    candidates_per_prompt: int | None = None
    """Of rsf: completions for each prompt and direction. More leave a better best, at the price of
    sampling."""
    directions: int | None = None
    """Of rsf: how many preference directions to train on; listed ones go into --settings."""
    rsf: dict[str, Any] | None = None
    """Of rsf: the same as --settings, as a table [rsf]."""
    watch: bool = True
    """Show the job's progress until it ends. Without it, the command prints the id and stops."""


class JobListConfig(ServerSettings):
    """List the fine-tuning jobs of the server, newest first.

    Examples:
      steerward jobs list
      steerward jobs list --limit 5 --json
    """

    limit: int = Field(default=20, ge=1, le=100)
    """Most jobs to list."""
    json_output: bool = False
    """Print the answer of the server as JSON; --json for short."""


class JobSettings(ServerSettings):
    """Which job."""

    job: Annotated[str, POSITIONAL]
    """Id of the job, as `steerward jobs list` tells it."""


class JobShowConfig(JobSettings):
    """Show a job: where it is, what its iterations or steps brought, and all settings it uses.

    Examples:
      steerward jobs show ftjob-0123456789abcdef
      steerward jobs show ftjob-0123456789abcdef --json | jq .progress.history
    """

    json_output: bool = False
    """Print the job as JSON; --json for short."""


class JobWatchConfig(JobSettings):
    """Watch a job until it ends.

    In a terminal the view is live; elsewhere each event is a line. A broken connection is tried
    again for two minutes. Ctrl-C stops watching only: the job goes on. The exit status is 0 if the
    job has succeeded; 1 if it failed, was cancelled or paused itself; 130 after Ctrl-C.

    Examples:
      steerward jobs watch ftjob-0123456789abcdef
      steerward jobs watch ftjob-0123456789abcdef > job.log
    """


class JobEventsConfig(JobSettings):
    """Print what happened to a job, a line for each event, in the order of time.

    Examples:
      steerward jobs events ftjob-0123456789abcdef
      steerward jobs events ftjob-0123456789abcdef --limit 1000
    """

    limit: int = Field(default=100, ge=1)
    """Most events; the newest are printed."""


class JobPauseConfig(JobSettings):
    """Pause a job: it stops at a point from which it can go on, and frees the device.

    Examples:
      steerward jobs pause ftjob-0123456789abcdef
    """


class JobResumeConfig(JobSettings):
    """Let a paused job go on where it stopped.

    Examples:
      steerward jobs resume ftjob-0123456789abcdef
    """


class JobCancelConfig(JobSettings):
    """Cancel a job for good; the weights that are served stay as they are.

    Examples:
      steerward jobs cancel ftjob-0123456789abcdef
    """


class JobSamplesConfig(JobSettings):
    """Download every sample of a job, as JSON lines; of other methods than rsf, its log.

    Each sample holds the prompt, the direction, the completion, its rewards, whether it was
    selected or why not, and the versions of the weights that made and scored it. Other trainers can
    learn from the samples as preference pairs (dpo) or as conversations (sft), each with its
    direction in the system turn. A row of a log is a step with its metrics, or an evaluation with
    the rewards of each held-out prompt.

    Examples:
      steerward jobs samples ftjob-0123456789abcdef --out samples.jsonl
      steerward jobs samples ftjob-0123456789abcdef --format dpo --out pairs.jsonl
      steerward jobs samples ftjob-0123456789abcdef | jq 'select(.selected)'
    """

    format: Literal["results", "dpo", "sft"] = "results"
    """results: the file as it is; dpo: each winner with the worst that competed with it, in TRL's
    conversational format; sft: the winners."""
    out: Path | None = None
    """File to write; it appears when it is complete. Default: standard output."""


class JobCheckpointsConfig(JobSettings):
    """List the policies that the iterations of a job led to, or its end, newest first.

    Examples:
      steerward jobs checkpoints ftjob-0123456789abcdef
    """


class FileListConfig(ServerSettings):
    """List the files that the server keeps for fine-tuning, newest first.

    Examples:
      steerward files list
      steerward files list --limit 5 --json
    """

    limit: int = Field(default=20, ge=1, le=100)
    """Most files to list."""
    json_output: bool = False
    """Print the answer of the server as JSON; --json for short."""


class FileUploadConfig(ServerSettings):
    """Upload a file of prompts, conversations or preferences, and print its id.

    Every row is checked before the file is kept.

    Examples:
      steerward files upload prompts.jsonl
    """

    path: Annotated[Path, POSITIONAL]
    """File to upload, JSON lines in UTF-8."""


class FileDeleteConfig(ServerSettings):
    """Delete a file of the server.

    Examples:
      steerward files delete file-0123456789abcdef
    """

    file: Annotated[str, POSITIONAL]
    """Id of the file, as `steerward files list` tells it."""
