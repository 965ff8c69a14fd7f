"""The server of the contract tests, with its tiny policy."""

from __future__ import annotations

from tests.contract.conftest import served as served
