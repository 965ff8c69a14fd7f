"""Every error survives JSON both ways, and says what HTTP needs to know."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.protocol import errors
from steerward.protocol.errors import SteerwardError, error_from_body

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SteerwardError)
]

TABLE = {
    "InvalidRequest": ("invalid_request", 422, False),
    "UnknownObjective": ("unknown_objective", 422, False),
    "InvalidDirection": ("invalid_direction", 422, False),
    "Unauthorized": ("unauthorized", 401, False),
    "NotFound": ("not_found", 404, False),
    "InputTooLong": ("input_too_long", 413, False),
    "Overloaded": ("overloaded", 429, True),
    "NotReady": ("not_ready", 503, True),
    "DeadlineExceeded": ("deadline_exceeded", 504, True),
    "EngineFailure": ("engine_failure", 500, False),
    "NonFiniteScore": ("non_finite_score", 500, False),
    "TrainingFailed": ("training_failed", 500, False),
    "StorageFull": ("storage_full", 507, False),
}


@settings(deadline=None)
@given(
    cls=st.sampled_from(CLASSES),
    message=st.text(),
    param=st.none() | st.text(),
    retry_after_s=st.none() | st.floats(0, 100),
)
def test_every_error_survives_json(
    cls: type[SteerwardError], message: str, param: str | None, retry_after_s: float | None
) -> None:
    body = json.loads(json.dumps(cls(message, param=param).to_body()))
    back = error_from_body(cls.status, body, retry_after_s=retry_after_s)
    assert type(back) is cls
    assert (back.message, back.param, back.retry_after_s) == (message, param, retry_after_s)


@pytest.mark.parametrize("name", TABLE)
def test_codes_and_statuses_are_the_documented_ones(name: str) -> None:
    cls = getattr(errors, name)
    assert (cls.code, cls.status, cls.is_retryable) == TABLE[name]


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, None, "Overloaded"),
        (502, "<html>", "NotReady"),
        (503, {"detail": "x"}, "NotReady"),
        (504, {"error": "text"}, "DeadlineExceeded"),
        (418, {}, "InvalidRequest"),
        (500, {"error": {"code": "unheard of", "message": 3}}, "SteerwardError"),
        (422, {"error": {"code": "unknown_objective", "message": "m"}}, "UnknownObjective"),
    ],
)
def test_answers_of_others_become_the_nearest_error(
    status: int, body: object, expected: str
) -> None:
    assert type(error_from_body(status, body)).__name__ == expected
