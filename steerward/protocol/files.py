"""Uploaded files on the wire: OpenAI's file object, and what a row of each kind must be."""

from __future__ import annotations

from typing import Literal

from steerward.protocol.wire import AnswerModel

FilePurpose = Literal["fine-tune", "fine-tune-results"]
FileContents = Literal["prompts", "conversations", "preferences", "samples", "metrics"]
"""Rows that end with a user turn, rows that end with the assistant's, or prompts with a chosen and
a rejected response. Of jobs: what one sampled, or what one logged and measured."""


class FileObject(AnswerModel):
    """A file that was uploaded, or that a job wrote."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    """Seconds since 1970."""
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"
    """Files are checked whole before they are kept."""
    rows: int
    """Lines of JSON in it."""
    holds: FileContents
    """What all of its rows are."""
    expires_at: int | None = None


class FileList(AnswerModel):
    """Answer of ``GET /v1/files``, newest first."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileDeleted(AnswerModel):
    """Answer of ``DELETE /v1/files/{id}``."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
