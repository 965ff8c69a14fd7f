"""Settings of the scoring engine."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from steerward.config.settings import Settings

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


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
