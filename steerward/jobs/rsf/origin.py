"""What a job began with: if a server comes back with other weights, the job does not go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from steerward.jobs.disk import write_whole
from steerward.protocol.errors import InvalidRequest

_FILE = "origin.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """The models that a job began with."""

    policy: str
    policy_weight_version: str
    reward_model: str | None = None
    """None: the job asks for no rewards."""
    reward_weight_version: str | None = None


def read_origin(folder: Path) -> Origin | None:
    """Return what a job began with; None if that was not kept."""
    path = folder / _FILE
    return Origin(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def check_origin(folder: Path, now: Origin) -> None:
    """Keep what a job begins with, or compare it with what it began with.

    Args:
        folder: Of the job; must be there.
        now: What is served now.

    Raises:
        InvalidRequest: If it is not the same; both versions are told.
        OSError: If the folder cannot be written.
    """
    path = folder / _FILE
    if not path.exists():
        text = json.dumps(asdict(now), indent=2)
        write_whole(path, lambda building: building.write_text(text, encoding="utf-8"))
        return
    then = read_origin(folder)
    assert then is not None
    for what, was, found in (
        ("weights of the policy", then.policy_weight_version, now.policy_weight_version),
        ("reward model", then.reward_model, now.reward_model),
        ("weights of the reward model", then.reward_weight_version, now.reward_weight_version),
    ):
        if was != found:
            raise InvalidRequest(
                f"the {what} of this server is not what the job began with: it is {found}, and "
                f"was {was}; what was sampled and scored so far does not go with it: create a new "
                "job",
                param="model",
            )
