"""Processes that train together end together."""

from __future__ import annotations

import torch


def end_together() -> None:
    """Wait for the other processes, and close what connects them.

    A process that ends before its connections are closed may be aborted by their threads, and the
    launcher then ends all of them. Does nothing where there is one process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
