"""Steerward: a reward-model server that explains its scores and is steered by numbers.

Importing this package loads neither torch nor a web framework; the client classes come on
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerward.clients import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        import steerward.clients as clients

        return getattr(clients, name)
    raise AttributeError(f"module 'steerward' has no attribute {name!r}")
