"""Settings know what exposes a server."""

from __future__ import annotations

import pytest

from steerward.config import ServeConfig


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.1.2.3", True),
        ("example.org", True),
    ],
)
def test_addresses_other_machines_can_reach(host: str, is_exposed: bool) -> None:
    assert ServeConfig(host=host).is_exposed is is_exposed


def test_server_is_bound_to_loopback_by_default() -> None:
    assert not ServeConfig().is_exposed
