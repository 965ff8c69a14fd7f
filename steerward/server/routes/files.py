"""``/v1/files``: rows of JSON that jobs read, and those that they write."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from steerward.protocol.errors import ErrorBody
from steerward.protocol.files import FileDeleted, FileList, FileObject, FilePurpose
from steerward.server.auth import KeyedRoute
from steerward.server.disconnect import gone
from steerward.server.documentation import error_answers
from steerward.server.queries import Page, PathId, desk_of
from steerward.server.responses import json_response
from steerward.server.uploads import receive_file

router = APIRouter(tags=["files"], route_class=KeyedRoute)

_ANSWERS: dict[int | str, dict[str, Any]] = error_answers(401, 404, 422, 503)
_ANSWERS[404]["description"] = "No such file"
_ANSWERS[503]["description"] = "The server runs no jobs, or its database does not answer"
_ANSWERS_TO_UPLOAD = error_answers(401, 413, 422, 500) | {
    503: _ANSWERS[503],
    507: {"model": ErrorBody, "description": "The disk is full"},
}
_ANSWERS_TO_UPLOAD[500]["description"] = "The disk refuses"
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "purpose": {"const": "fine-tune"},
                    "file": {"type": "string", "format": "binary"},
                },
                "required": ["purpose", "file"],
                "additionalProperties": False,
            }
        }
    },
}


class FilePage(Page):
    """Which files."""

    purpose: FilePurpose | None = None
    """fine-tune: uploaded; fine-tune-results: written by a job."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """Most entries."""
    order: Literal["asc", "desc"] = "desc"
    """By time: oldest or newest first."""


@router.post(
    "/v1/files",
    response_model=FileObject,
    responses=_ANSWERS_TO_UPLOAD,
    openapi_extra={"requestBody": _FORM},
)
async def upload_file(request: Request) -> Response:
    """Upload a file of JSON lines; it is checked whole, and kept only if every row is good.

    Prompts are rows `{"prompt": "..."}` or `{"messages": [...]}` that end with a user turn, or
    `{"messages": [...]}` that end with the assistant's turn, which are conversations; preferences
    are prompts with `chosen` and `rejected` beside them, or rows of OpenAI's method `dpo`: a file
    holds one of the three, and its `holds` tells which. What judges read of a row stands beside
    its prompt as `answer`, `instructions`, `instruction_id_list`, `kwargs`, `json_schema`,
    `keywords`, `task` or `baseline`, and under any other name in an object `columns`. The only
    `purpose` is `fine-tune`.
    """
    try:
        file = await receive_file(request, desk_of(request))
    except ClientDisconnect:
        return gone()
    return json_response(file.model_dump())


@router.get("/v1/files", response_model=FileList, responses=_ANSWERS)
async def list_files(page: Annotated[FilePage, Query()], request: Request) -> Response:
    """Return the files, newest first, uploaded ones and those that jobs wrote."""
    found = await desk_of(request).files(
        purpose=page.purpose,
        after=page.after,
        limit=page.limit,
        newest_first=page.order == "desc",
    )
    return json_response(found.model_dump())


@router.get("/v1/files/{file_id}", response_model=FileObject, responses=_ANSWERS)
async def get_file(file_id: PathId, request: Request) -> Response:
    """Return what is known of a file."""
    return json_response((await desk_of(request).file(file_id)).model_dump())


@router.get(
    "/v1/files/{file_id}/content",
    response_class=FileResponse,
    responses={
        **_ANSWERS,
        200: {
            "description": "The rows, one a line",
            "content": {"application/jsonl": {"schema": {"type": "string"}}},
        },
    },
)
async def get_file_content(file_id: PathId, request: Request) -> Response:
    """Return the rows of a file."""
    file, path = await desk_of(request).content(file_id)
    headers = {"x-content-type-options": "nosniff"}
    return FileResponse(
        path, headers=headers, media_type="application/jsonl", filename=file.filename
    )


@router.delete("/v1/files/{file_id}", response_model=FileDeleted, responses=_ANSWERS)
async def delete_file(file_id: PathId, request: Request) -> Response:
    """Delete a file."""
    return json_response((await desk_of(request).delete_file(file_id)).model_dump())
