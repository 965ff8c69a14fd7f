"""The logs of a run, for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerward.protocol.errors import SteerwardError


def tensorboard_callback(folder: Path) -> Any:
    """Return a callback of transformers' trainers that writes event files.

    Raises:
        SteerwardError: If TensorBoard's writer is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SteerwardError(
            "logs for TensorBoard need its package; run: pip install tensorboard"
        ) from error
    from transformers.integrations.integration_utils import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder)))
