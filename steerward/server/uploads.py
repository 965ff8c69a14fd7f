"""Takes an upload apart as it comes: the form is never whole in memory, nor twice on the disk."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from steerward.jobs.desk import JobDesk
from steerward.jobs.incoming import IncomingFile
from steerward.protocol.errors import InvalidRequest, brief
from steerward.protocol.files import FileObject

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PURPOSE_BYTES = 64
_PURPOSE = "fine-tune"
# Fewer and larger pieces, since each crosses to a thread.
_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class PartHead:
    """Beginning of a field or file of a form."""

    name: str
    filename: str | None


class FormParts:
    """Turns the body of a form into its parts.

    Args:
        content_type: Header of the request.

    Raises:
        InvalidRequest: If the header does not tell of a form.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            said = f"is sent as {brief(content_type)!r}" if content_type else "has no Content-Type"
            raise InvalidRequest(
                f"the body {said}; send multipart/form-data with a boundary, and in it the fields "
                "purpose and file"
            )
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._headers_clear,
            "on_header_field": lambda data, start, end: self._key.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": lambda data, start, end: self._found.append(data[start:end]),
            "on_end": self._on_end,
        }
        self._key, self._value, self._disposition = bytearray(), bytearray(), b""
        self._found: list[PartHead | bytes] = []
        self._is_complete = False
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError as error:
            raise _broken(error) from None

    def feed(self, data: bytes) -> list[PartHead | bytes]:
        """Return the heads of the parts that begin in some bytes, each before its contents.

        Raises:
            InvalidRequest: If they are no form.
        """
        self._found = []
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(error) from None
        return self._found

    def end(self) -> None:
        """Take it that nothing more comes.

        Raises:
            InvalidRequest: If the form is not complete.
        """
        if not self._is_complete:
            raise InvalidRequest("the form breaks off before its last boundary; send it again")

    def _headers_clear(self) -> None:
        self._disposition = b""

    def _on_header_end(self) -> None:
        if self._key.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._key, self._value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidRequest("a part of the form has no name; send the fields purpose and file")
        filename = options.get(b"filename")
        self._found.append(
            PartHead(_text(options[b"name"]), None if filename is None else _text(filename))
        )

    def _on_end(self) -> None:
        self._is_complete = True


async def receive_file(request: Request, desk: JobDesk) -> FileObject:
    """Store the file that a form holds.

    Raises:
        InvalidRequest: If the form or the file in it is not what it should be.
        InputTooLong: If the file is larger than a file may be.
    """
    parts = FormParts(request.headers.get("content-type", ""))
    async with AsyncExitStack() as stack:
        form = _FileForm(desk, stack)
        async for data in request.stream():
            for piece in parts.feed(data):
                if isinstance(piece, PartHead):
                    await form.begin(piece)
                else:
                    await form.take(piece)
        parts.end()
        return await form.finish()


class _FileForm:
    """Knows the two fields of an upload, which may come in any order."""

    def __init__(self, desk: JobDesk, stack: AsyncExitStack) -> None:
        self._desk = desk
        self._stack = stack
        self._seen: set[str] = set()
        self._field = ""
        self._purpose = bytearray()
        self._file: IncomingFile | None = None
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    async def begin(self, head: PartHead) -> None:
        """Begin a field."""
        if head.name not in ("purpose", "file"):
            place = brief(head.name)
            raise InvalidRequest(
                f"{place}: unknown field; the known ones are purpose and file", param=place
            )
        if head.name in self._seen:
            raise InvalidRequest(f"{head.name} is there twice; send it once", param=head.name)
        self._seen.add(head.name)
        self._field = head.name
        if head.name == "file":
            if head.filename is None:
                raise InvalidRequest("file is sent without a name; send it as a file", param="file")
            upload = self._desk.upload(head.filename)
            self._file = await self._stack.enter_async_context(upload)

    async def take(self, piece: bytes) -> None:
        """Take some of the field's contents."""
        if self._field == "purpose":
            self._purpose += piece
            if len(self._purpose) > _MOST_PURPOSE_BYTES:
                raise self._wrong_purpose()
            return
        self._pieces.append(piece)
        self._num_bytes += len(piece)
        if self._num_bytes >= _PIECE_BYTES:
            await self._write()

    async def finish(self) -> FileObject:
        """Keep the file."""
        for name in ("purpose", "file"):
            if name not in self._seen:
                raise InvalidRequest(f"the field {name} is missing; send it", param=name)
        if self._purpose != _PURPOSE.encode():
            raise self._wrong_purpose()
        assert self._file is not None
        await self._write()
        return await self._file.finish()

    async def _write(self) -> None:
        assert self._file is not None
        piece = b"".join(self._pieces)
        self._pieces, self._num_bytes = [], 0
        await self._file.write(piece)

    def _wrong_purpose(self) -> InvalidRequest:
        given = brief(_text(bytes(self._purpose)))
        return InvalidRequest(
            f"purpose {given!r} is not known; the one for uploads is {_PURPOSE!r}", param="purpose"
        )


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _broken(error: FormParserError) -> InvalidRequest:
    return InvalidRequest(f"the body is no form of multipart/form-data: {error}")
