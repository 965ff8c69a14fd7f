"""Which encoding a client is answered in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from steerward.protocol.arrays import MEDIA_TYPE
from steerward.server.responses import prefers


def accepting(*values: str) -> Request:
    headers = [(b"accept", value.encode("latin-1", "replace")) for value in values]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    "accept",
    [
        MEDIA_TYPE,
        MEDIA_TYPE.upper(),
        f"{MEDIA_TYPE}; q=0.001",
        f"{MEDIA_TYPE}, */*",
        f"*/*, {MEDIA_TYPE}",
        f"{MEDIA_TYPE}, application/*",
        f"{MEDIA_TYPE}, application/json;q=0.9",
        f"application/json;q=0, {MEDIA_TYPE};q=0.1",
        f"{MEDIA_TYPE};q=0.8, application/json;q=0.5, */*;q=0.9",
        f"text/html, ,{MEDIA_TYPE} ; q=1.000 ; x=y",
    ],
)
def test_arrays_are_for_those_who_name_them(accept: str) -> None:
    assert prefers(accepting(accept), MEDIA_TYPE)
    assert prefers(accepting(*accept.split(",")), MEDIA_TYPE)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "text/html",
        "application/octet-stream",
        f"{MEDIA_TYPE};q=0",
        f"{MEDIA_TYPE};q=0.0, application/json;q=0",
        f"{MEDIA_TYPE}, application/json",
        f"application/json, {MEDIA_TYPE}",
        f"{MEDIA_TYPE};q=0.5, application/json",
        f"{MEDIA_TYPE};q=0.5, */*",
        f"{MEDIA_TYPE};q=nan",
        f"{MEDIA_TYPE};q=2",
        f"{MEDIA_TYPE};q=",
        "application/vnd.safetensors2",
    ],
)
def test_json_is_for_everybody_else(accept: str) -> None:
    assert not prefers(accepting(accept), MEDIA_TYPE)


def test_no_header_is_json() -> None:
    assert not prefers(accepting(), MEDIA_TYPE)


@given(st.lists(st.text(max_size=30) | st.sampled_from([MEDIA_TYPE, ";q=", ",", "1"]), max_size=6))
def test_no_header_is_too_odd(parts: list[str]) -> None:
    assert prefers(accepting("".join(parts)), MEDIA_TYPE) in (True, False)
