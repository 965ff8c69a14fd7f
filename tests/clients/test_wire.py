"""The pure half of the clients: retry decisions, requests, answers."""

from __future__ import annotations

import inspect
import math
from typing import Any

import httpx
import pytest

from steerward.clients import AsyncClient, Client
from steerward.clients._wire import (
    Retry,
    client_headers,
    model_call,
    models_call,
    read_answer,
    score_call,
)
from steerward.protocol.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    InvalidDirection,
    InvalidRequest,
    NotReady,
    Overloaded,
    SteerwardError,
)


@pytest.mark.parametrize("error", [Overloaded("x"), NotReady("x"), ConnectionFailed("x")])
def test_backoff_grows_and_ends(error: SteerwardError) -> None:
    retry = Retry(max_retries=6)
    delays = [retry.delay_s(error, attempt) for attempt in range(1, 8)]
    assert delays[-1] is None
    known = [delay for delay in delays if delay is not None]
    assert all(0.375 <= delay <= 8.0 for delay in known)
    assert known[3] > known[0]


@pytest.mark.parametrize("after", [0.0, 3.0, 120.0])
def test_servers_own_delay_is_honoured(after: float) -> None:
    assert Retry(2).delay_s(Overloaded("x", retry_after_s=after), 1) == after


def test_too_long_a_delay_is_not_waited_for() -> None:
    assert Retry(2).delay_s(Overloaded("x", retry_after_s=121.0), 1) is None


def test_limit_of_the_servers_delay_can_be_lifted() -> None:
    patient = Retry(2, longest_retry_after_s=math.inf)
    assert patient.delay_s(Overloaded("x", retry_after_s=900.0), 1) == 900.0


def test_what_no_retry_mends_is_not_retried() -> None:
    assert Retry(5).delay_s(InvalidRequest("x"), 1) is None
    assert Retry(0).delay_s(DeadlineExceeded("x"), 1) is None


def test_bad_request_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="candidates") as caught:
        score_call([{"prompt": "hi", "candidates": []}])
    assert caught.value.param == "items[0].candidates"


ITEM = {"prompt": "hi", "candidates": ["yo"]}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("form", ["weights", "direction", "directions"])
def test_numbers_that_json_cannot_spell_are_never_sent(form: str, number: float) -> None:
    """They went out as null, and the server then spoke of a missing number."""
    given: Any = {"a": number}
    with pytest.raises(InvalidDirection) as caught:
        score_call([ITEM], **{form: [given] if form == "directions" else given})
    assert (caught.value.param or "").startswith(form)


@pytest.mark.parametrize(
    "options", [{"model": "\ud800"}, {"weights": {"\ud800": 1.0}}, {"direction": {"\ud800": 1.0}}]
)
def test_names_that_are_no_text_are_refused_with_their_place(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="lone surrogate") as caught:
        score_call([ITEM], **options)
    assert (caught.value.param or "").startswith(next(iter(options)))


def test_name_of_a_model_is_quoted_in_the_path() -> None:
    assert model_call("owner/a model?").path == "/v1/models/owner%2Fa%20model%3F"
    assert model_call("größe").path == "/v1/models/gr%C3%B6%C3%9Fe"
    with pytest.raises(InvalidRequest, match="Unicode"):
        model_call("\ud800")


@pytest.mark.parametrize("key", ["", " ", "secret\n", "a\r\nb: c", "\ud800"])
def test_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client_headers(key)
    assert caught.value.param == "api_key"


def test_attempt_lasts_as_long_as_the_server_may_take() -> None:
    """A read that ended before the server's deadline was retried as a lost connection."""
    longer = score_call([ITEM], timeout_s=600.0).attempt_timeout(120.0)
    assert longer.read is not None
    assert longer.read > 600.0
    assert longer.connect == 120.0
    assert score_call([ITEM], timeout_s=5.0).attempt_timeout(120.0).read == 120.0
    assert score_call([ITEM]).attempt_timeout(120.0).read == 120.0
    assert models_call().attempt_timeout(3.0) == httpx.Timeout(3.0)


def answer(status: int, **options: object) -> httpx.Response:
    request = httpx.Request("GET", "http://test/v1/models")
    return httpx.Response(status, request=request, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"object": "list"}', b'{"object": "lis'])
def test_success_that_is_not_ours_is_a_connection_error(content: bytes) -> None:
    with pytest.raises(ConnectionFailed, match="not a Steerward answer"):
        read_answer(models_call(), answer(200, content=content))


def test_error_carries_retry_after_and_request_id() -> None:
    headers = {"retry-after": "7", "x-request-id": "req-1"}
    with pytest.raises(Overloaded) as caught:
        read_answer(models_call(), answer(429, headers=headers, json=Overloaded("full").to_body()))
    assert caught.value.retry_after_s == 7.0
    assert caught.value.request_id == "req-1"
    assert caught.value.message == "full"


@pytest.mark.parametrize(
    ("headers", "delay_s"),
    [
        (
            {
                "date": "Wed, 21 Oct 2015 07:28:00 GMT",
                "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
            },
            30.0,
        ),
        (
            {
                "date": "Wed, 21 Oct 2015 07:28:30 GMT",
                "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
    ids=["ahead", "past", "own-clock", "nonsense", "absent"],
)
def test_retry_after_may_be_a_date(headers: dict[str, str], delay_s: float | None) -> None:
    with pytest.raises(NotReady) as caught:
        read_answer(models_call(), answer(503, headers=headers))
    assert caught.value.retry_after_s == delay_s


def public(cls: type) -> dict[str, object]:
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_shells_have_the_same_surface() -> None:
    blocking, asynchronous = public(Client), public(AsyncClient)
    assert blocking.keys() == asynchronous.keys()
    for name, method in blocking.items():
        ours = inspect.signature(method)  # pyright: ignore[reportArgumentType]
        theirs = inspect.signature(asynchronous[name])  # pyright: ignore[reportArgumentType]
        assert ours == theirs, name
    constructors = [inspect.signature(cls.__init__) for cls in (Client, AsyncClient)]
    names = [list(signature.parameters) for signature in constructors]
    assert names[0] == names[1]
