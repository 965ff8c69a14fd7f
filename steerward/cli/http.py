"""Calls to a running server: a thin blocking shell around httpx that says what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from steerward.cli.job_settings import ServerSettings
from steerward.protocol.errors import ConnectionFailed, InvalidRequest
from steerward.protocol.files import FileObject

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_TIMEOUT_S = 60.0
# A file is checked whole before the server answers.
_UPLOAD_TIMEOUT_S = 600.0


class ServerConnection:
    """One server, and the key that it wants.

    Nothing is tried again here: a job that is made twice would be two jobs.

    Args:
        url: Where the server is, without ``/v1``.
        api_key: Sent as a bearer key, if the server wants one.

    Raises:
        InvalidRequest: If the URL is none, or no header can carry the key.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        from steerward.clients._wire import client_headers

        self.url = url
        try:
            self._http = httpx.Client(
                base_url=url, headers=client_headers(api_key), timeout=_TIMEOUT_S
            )
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"{url!r} is no URL: {error}", param="server") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, answer: type[AnswerT], **query: str | int | None) -> AnswerT:
        """Return the answer of a GET.

        Args:
            path: From the root of the server.
            answer: Type of the answer.
            query: Parameters of the URL; those that are None are left out.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path, answer, params=given)

    def post(
        self, path: str, answer: type[AnswerT], *, body: Mapping[str, Any] | None = None
    ) -> AnswerT:
        """Return the answer of a POST.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return self._call("POST", path, answer, json=body)

    def delete(self, path: str, answer: type[AnswerT]) -> AnswerT:
        """Return the answer of a DELETE.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return self._call("DELETE", path, answer)

    def upload(self, file: BinaryIO, *, name: str) -> FileObject:
        """Send a file of rows to fine-tune on, and return what the server keeps of it.

        Raises:
            SteerwardError: What the server or the connection failed with.
        """
        return self._call(
            "POST",
            "/v1/files",
            FileObject,
            data={"purpose": "fine-tune"},
            files={"file": (name, file, "application/jsonl")},
            timeout=_UPLOAD_TIMEOUT_S,
        )

    def download(self, path: str, target: BinaryIO) -> None:
        """Write the body of an answer to a file, piece by piece.

        Raises:
            SteerwardError: What the server or the connection failed with; part of the body may
                have been written then.
            OSError: If the target cannot be written.
        """
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    _read(response, FileObject)
                for piece in response.iter_bytes():
                    target.write(piece)
        except httpx.HTTPError as error:
            raise self._failed(error) from error

    def _call(self, method: str, path: str, answer: type[AnswerT], **options: Any) -> AnswerT:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._failed(error) from error
        return _read(response, answer)

    def _failed(self, error: httpx.HTTPError) -> ConnectionFailed:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ConnectionFailed(
            f"no answer from {self.url} ({reason}); is the server running? Start it with "
            "`steerward serve`, or name another with --server"
        )


def _read(response: httpx.Response, answer: type[AnswerT]) -> AnswerT:
    from steerward.clients._wire import Call, read_answer

    request = response.request
    call = Call(request.method, request.url.path, answer.model_validate_json)
    return read_answer(call, response)


def path_of(*parts: str) -> str:
    """Return a path of the server with ids in it, whatever characters people typed."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def connect(settings: ServerSettings) -> ServerConnection:
    """Return a connection to the server that the settings name.

    Raises:
        InvalidRequest: If no header can carry the key.
    """
    return ServerConnection(settings.server, api_key=settings.key)
