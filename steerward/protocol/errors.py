"""The one exception tree: what can go wrong, how HTTP says it, and whether to try again.

The server raises these, the client raises the same classes again from the answer's body. A
message says what was wrong, the value, the limit and the way out; it never holds a prompt or a
candidate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

_MOST_ECHOED = 80


def brief(text: str) -> str:
    """Return a name that somebody sent, short enough to be told back."""
    return text if len(text) <= _MOST_ECHOED else f"{text[:_MOST_ECHOED]}…"


class SteerwardError(Exception):
    """Base of every error that Steerward raises on purpose.

    Args:
        message: For people: what, the value, the limit, the way out.
        param: Place in the request, for example ``items[3].candidates[1]``.
        retry_after_s: How long to wait before trying again, where that is known.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    is_retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.request_id: str | None = None

    def to_body(self) -> dict[str, Any]:
        """Return the OpenAI error object, ready for JSON."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(SteerwardError):
    """The request breaks a rule that no retry will mend."""

    code = "invalid_request"
    status = 422
    kind = "invalid_request_error"


class UnknownObjective(InvalidRequest):
    """An objective name that the reward model does not have."""

    code = "unknown_objective"


class InvalidDirection(InvalidRequest):
    """A preference direction or weights that are zero, not finite or of the wrong sign."""

    code = "invalid_direction"


class Unauthorized(SteerwardError):
    """No API key, or a wrong one."""

    code = "unauthorized"
    status = 401
    kind = "authentication_error"


class NotFound(SteerwardError):
    """A model or a route that this server does not have."""

    code = "not_found"
    status = 404
    kind = "not_found_error"


class InputTooLong(SteerwardError):
    """A text, body or list over its limit. Nothing is ever cut to fit."""

    code = "input_too_long"
    status = 413
    kind = "invalid_request_error"


class Overloaded(SteerwardError):
    """The queue is full, or a time-out would be missed; refused before it was queued."""

    code = "overloaded"
    status = 429
    kind = "rate_limit_error"
    is_retryable = True


class NotReady(SteerwardError):
    """The server is starting, draining, or its device worker has stopped."""

    code = "not_ready"
    status = 503
    kind = "service_unavailable_error"
    is_retryable = True


class DeadlineExceeded(SteerwardError):
    """The request's deadline passed before its scores were there."""

    code = "deadline_exceeded"
    status = 504
    kind = "timeout_error"
    is_retryable = True


class EngineFailure(SteerwardError):
    """The device worker failed while it held this request."""

    code = "engine_failure"


class NonFiniteScore(EngineFailure):
    """A reward, gate or score came out as NaN or infinity."""

    code = "non_finite_score"


class ConnectionFailed(SteerwardError):
    """The client could not reach the server, or the answer broke off."""

    code = "connection_failed"
    status = 0
    kind = "connection_error"
    is_retryable = True


class CheckpointRefused(SteerwardError):
    """A checkpoint that cannot be loaded without guessing; the key or file is named."""

    code = "checkpoint_refused"


class DatasetRefused(SteerwardError):
    """A data file that does not follow its schema; the file and row are named."""

    code = "dataset_refused"


class TrainingFailed(SteerwardError):
    """The process that fine-tunes ended without weights; the reason and its log are named."""

    code = "training_failed"
    was_killed = False
    """Whether a signal ended it, and not itself: it goes on where it was if started again."""


class StorageFull(SteerwardError):
    """No room is left on the disk that was to be written to."""

    code = "storage_full"
    status = 507


class ErrorDetail(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str = SteerwardError.kind
    param: str | None = None
    """Place in the request, where there is one."""
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every answer that is not a success."""

    error: ErrorDetail


def _subclasses(cls: type[SteerwardError]) -> Iterable[type[SteerwardError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _subclasses(child)


# Statuses that servers and proxies between us and the user answer without our body.
_BY_STATUS: dict[int, type[SteerwardError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    408: DeadlineExceeded,
    413: InputTooLong,
    422: InvalidRequest,
    429: Overloaded,
    502: NotReady,
    503: NotReady,
    504: DeadlineExceeded,
}


def error_from_body(
    status: int, body: object, *, retry_after_s: float | None = None
) -> SteerwardError:
    """Return the error that an HTTP answer describes.

    The class follows the body's ``code``; where a proxy answered in our place, the status
    decides. The result is not raised here.
    """
    try:
        detail = ErrorBody.model_validate(body).error
    except ValidationError:
        detail = ErrorDetail(message=f"the server answered with status {status}")
    by_code = {cls.code: cls for cls in _subclasses(SteerwardError)}
    fallback = _BY_STATUS.get(status, InvalidRequest if 400 <= status < 500 else SteerwardError)
    cls = by_code.get(detail.code or "", fallback)
    return cls(detail.message, param=detail.param, retry_after_s=retry_after_s)
