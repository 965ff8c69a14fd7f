"""``/v1/fine_tuning/jobs``, and the models that come of them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.protocol.fine_tuning import (
    Job,
    JobCheckpointList,
    JobEventList,
    JobList,
    JobRequest,
    ModelDeleted,
)
from steerward.server.auth import KeyedRoute
from steerward.server.documentation import error_answers
from steerward.server.job_events import JobEventStream, JobFollower
from steerward.server.queries import (
    ID_PATTERN,
    METADATA_PARAMETER,
    After,
    Page,
    PathId,
    desk_of,
    metadata_filter,
    refuse_unknown,
)
from steerward.server.responses import json_response
from steerward.server.state import state_of

router = APIRouter(tags=["fine-tuning"], route_class=KeyedRoute)

_ANSWERS: dict[int | str, dict[str, Any]] = error_answers(401, 404, 422, 503)
_ANSWERS[404]["description"] = "No such job, or nothing of the id `after`"
_ANSWERS[503]["description"] = "The server runs no jobs, or its database does not answer"
_ANSWERS_TO_NEW = {**_ANSWERS, **error_answers(404, 413)}
_ANSWERS_TO_NEW[404]["description"] = "No such model, or no such file"
# Of one event; comments, which begin with a colon, are between them.
_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["event", "data"],
}


class JobPage(Page):
    """Which jobs; `metadata[KEY]` is read apart."""

    model_config = {"extra": "ignore"}


class EventPage(After):
    """Which events."""

    limit: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most entries of a list: 20 if it is left out. A stream has no limit."""
    stream: bool = False
    """Answer with server-sent events."""


@router.post("/v1/fine_tuning/jobs", response_model=Job, responses=_ANSWERS_TO_NEW)
async def create_job(body: JobRequest, request: Request) -> Response:
    """Queue a job that fine-tunes a policy, by rejection sampling or another method.

    `rsf`: in each iteration the policy draws completions of prompts of the training file under
    preference directions, a reward model scores them, and the policy is fine-tuned on the best and
    served from then on to the job. `pama`, `grpo`, `cgpo`: the policy is trained on several rewards
    of what it draws, as it draws it; judges of `cgpo` run no programs and call no other server.
    `modpo`: it is trained on preferences, with rewards of other objectives as margins; `mapl`: on
    preferences, and on what is built of them with instructions that can be checked. A job that has
    succeeded names the new policy in `fine_tuned_model`.
    """
    return json_response((await desk_of(request).create(body)).model_dump())


@router.get(
    "/v1/fine_tuning/jobs",
    response_model=JobList,
    responses=_ANSWERS,
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_jobs(page: Annotated[JobPage, Query()], request: Request) -> Response:
    """Return the jobs, newest first."""
    refuse_unknown(request, set(JobPage.model_fields))
    metadata = metadata_filter(request)
    found = await desk_of(request).jobs(after=page.after, limit=page.limit, metadata=metadata)
    return json_response(found.model_dump())


@router.get("/v1/fine_tuning/jobs/{job_id}", response_model=Job, responses=_ANSWERS)
async def get_job(job_id: PathId, request: Request) -> Response:
    """Return a job and where it is."""
    return json_response((await desk_of(request).job(job_id)).model_dump())


@router.post("/v1/fine_tuning/jobs/{job_id}/cancel", response_model=Job, responses=_ANSWERS)
async def cancel_job(job_id: PathId, request: Request) -> Response:
    """End a job; the policy that it began with is served as before."""
    return json_response((await desk_of(request).ask(job_id, "cancel")).model_dump())


@router.post("/v1/fine_tuning/jobs/{job_id}/pause", response_model=Job, responses=_ANSWERS)
async def pause_job(job_id: PathId, request: Request) -> Response:
    """Stop a job where it is; it keeps what it has, and can be resumed."""
    return json_response((await desk_of(request).ask(job_id, "pause")).model_dump())


@router.post("/v1/fine_tuning/jobs/{job_id}/resume", response_model=Job, responses=_ANSWERS)
async def resume_job(job_id: PathId, request: Request) -> Response:
    """Let a paused job go on."""
    return json_response((await desk_of(request).ask(job_id, "resume")).model_dump())


@router.get(
    "/v1/fine_tuning/jobs/{job_id}/events",
    response_model=JobEventList,
    responses={
        **_ANSWERS,
        **error_answers(429),
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
    },
)
async def list_events(
    job_id: PathId,
    page: Annotated[EventPage, Query()],
    request: Request,
    last_event_id: Annotated[str | None, Header(pattern=ID_PATTERN)] = None,
) -> Response:
    """Return what happened to a job, newest first; `after` then means before.

    With `stream` the answer is server-sent events, oldest first: all there are, or those after
    the event that the header `Last-Event-ID` or else `after` names, and then each as it comes.
    Their type is `message` or `metrics`, their data a `JobEvent`. When the job has ended, an event
    `done` with the `Job` closes the stream. One that ends without it can be taken up again.
    """
    desk = desk_of(request)
    if not page.stream:
        limit = page.limit if page.limit is not None else 20
        found = await desk.events(job_id, after=page.after, limit=limit)
        return json_response(found.model_dump())
    if page.limit is not None:
        raise InvalidRequest("limit is for lists; a stream has every event", param="limit")
    with ExitStack() as places:
        places.enter_context(desk.followers.seat())
        events = await JobFollower(desk, job_id).begin(after=last_event_id or page.after)
        return JobEventStream(events, places.pop_all())


@router.get(
    "/v1/fine_tuning/jobs/{job_id}/checkpoints",
    response_model=JobCheckpointList,
    responses=_ANSWERS,
)
async def list_checkpoints(
    job_id: PathId, page: Annotated[Page, Query()], request: Request
) -> Response:
    """Return the policies after each iteration, or at the end, newest first."""
    found = await desk_of(request).checkpoints(job_id, after=page.after, limit=page.limit)
    return json_response(found.model_dump())


# Whoever names a model may put slashes into the name.
@router.delete(
    "/v1/models/{model:path}",
    response_model=ModelDeleted,
    responses={**_ANSWERS, **error_answers(404)},
)
async def delete_model(
    model: Annotated[str, Path(pattern=r"^[^\x00-\x1f]{1,256}$")], request: Request
) -> Response:
    """Delete a model that a job has made: it is served no longer, and its weights go."""
    try:
        deleted = await desk_of(request).delete_model(model)
    except NotFound:
        state = state_of(request)
        if model not in state.engines and model not in state.generating:
            raise
        raise InvalidRequest(
            f"{brief(model)!r} was not made by a job here; only those models can be deleted",
            param="model",
        ) from None
    return json_response(deleted.model_dump())
