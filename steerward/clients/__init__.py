"""The SDK: typed clients for a Steerward server. Needs httpx and pydantic, nothing else."""

from steerward.clients._async import AsyncClient
from steerward.clients._sync import Client

__all__ = ["AsyncClient", "Client"]
