"""What fine-tuning needs of a policy: its checkpoint, and a way to serve what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from steerward.policy.generation import Policy


@runtime_checkable
class TrainablePolicy(Policy, Protocol):
    """A policy whose weights lie here."""

    @property
    def folder(self) -> Path:
        """Of its checkpoint."""
        ...

    @property
    def max_running(self) -> int:
        """Completions that it draws at once."""
        ...

    def swap_weights(self, folder: str | Path) -> str:
        """Let requests from now on be drawn by other weights, and return their version. Blocks.

        Raises:
            CheckpointRefused: If they do not fit.
        """
        ...

    def load_variant(self, name: str, folder: str | Path) -> str:
        """Serve weights beside the policy under a name, and return their version. Blocks.

        Raises:
            CheckpointRefused: If they do not fit.
        """
        ...

    def load_adapter(self, name: str, folder: str | Path) -> str:
        """Serve a LoRA adapter under a name, and return its version. Blocks.

        Raises:
            CheckpointRefused: If it does not fit.
        """
        ...

    def drop(self, name: str) -> None:
        """Serve a variant or adapter no longer.

        Raises:
            NotFound: If there is none.
        """
        ...
