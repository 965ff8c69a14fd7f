"""Files over HTTP: what is taken, what is refused, and that each is found again."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.jobs.serving import (
    CONVERSATIONS,
    FILES,
    PROMPTS,
    Serving,
    create,
    error_of,
    lines,
    upload,
)

pytestmark = pytest.mark.anyio

PURPOSE = {"purpose": "fine-tune"}


async def test_uploaded_file_is_told_listed_and_given_back(client: httpx.AsyncClient) -> None:
    answer = await client.post(FILES, data=PURPOSE, files={"file": ("a b.jsonl", lines(PROMPTS))})
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert (file["object"], file["filename"], file["purpose"], file["rows"], file["holds"]) == (
        "file", "a b.jsonl", "fine-tune", 4, "prompts",
    )  # fmt: skip
    assert file["bytes"] == len(lines(PROMPTS))
    assert (await client.get(f"{FILES}/{file['id']}")).json() == file
    content = await client.get(f"{FILES}/{file['id']}/content")
    assert content.content == lines(PROMPTS)
    assert content.headers["content-type"] == "application/jsonl"
    assert content.headers["content-disposition"].startswith("attachment; ")
    assert (await client.get(FILES)).json() == {
        "object": "list",
        "data": [file],
        "has_more": False,
        "first_id": file["id"],
        "last_id": file["id"],
    }


async def test_what_a_file_holds_is_told(client: httpx.AsyncClient) -> None:
    file_id = await upload(client, CONVERSATIONS)
    assert (await client.get(f"{FILES}/{file_id}")).json()["holds"] == "conversations"


async def test_fields_may_come_in_any_order(client: httpx.AsyncClient) -> None:
    parts = {"file": ("rows.jsonl", lines(PROMPTS)), "purpose": (None, b"fine-tune")}
    answer = await client.post(FILES, files=parts)
    assert answer.status_code == 200, answer.text


async def test_deleted_file_is_gone(client: httpx.AsyncClient, prompts: str) -> None:
    answer = await client.delete(f"{FILES}/{prompts}")
    assert answer.json() == {"id": prompts, "object": "file", "deleted": True}
    for path in (f"{FILES}/{prompts}", f"{FILES}/{prompts}/content"):
        gone = await client.get(path)
        assert error_of(gone)[:2] == (404, "not_found")
        assert prompts in gone.json()["error"]["message"]
    assert (await client.delete(f"{FILES}/{prompts}")).status_code == 404


async def test_file_of_a_job_that_waits_is_not_deleted(
    client: httpx.AsyncClient, prompts: str
) -> None:
    job = await create(client, prompts)
    refused = await client.delete(f"{FILES}/{prompts}")
    assert error_of(refused)[:2] == (422, "invalid_request")
    assert job["id"] in refused.json()["error"]["message"]


async def test_pages_in_both_orders(client: httpx.AsyncClient) -> None:
    ids = [await upload(client, name=f"{number}.jsonl") for number in range(3)]
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        seen: list[str] = []
        query: dict[str, Any] = {"order": order, "limit": 2}
        while True:
            page = (await client.get(FILES, params=query)).json()
            seen += [file["id"] for file in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert seen == expected
    results = await client.get(FILES, params={"purpose": "fine-tune-results"})
    assert results.json()["data"] == []


@pytest.mark.parametrize(
    ("data", "files", "param"),
    [
        pytest.param({"purpose": "vision"}, {"file": ("a", b"{}")}, "purpose", id="purpose"),
        pytest.param({"purpose": "p" * 9000}, {"file": ("a", b"{}")}, "purpose", id="long purpose"),
        pytest.param({}, {"file": ("a", lines(PROMPTS))}, "purpose", id="no purpose"),
        pytest.param(PURPOSE, {"other": ("a", b"{}")}, "other", id="unknown file"),
        pytest.param(
            PURPOSE | {"expires_after[seconds]": "9"},
            {"file": ("a", b"{}")},
            "expires_after[seconds]",
            id="unknown field",
        ),
        pytest.param(PURPOSE, {"file": ("a" * 256, b"{}")}, "file", id="long name"),
        pytest.param(PURPOSE, {"file": (None, b"{}")}, "file", id="no name"),
        pytest.param(PURPOSE, [("file", ("a", b"")), ("file", ("b", b""))], "file", id="twice"),
        pytest.param(PURPOSE, {"purpose": (None, b"fine-tune")}, "purpose", id="purpose twice"),
    ],
)
async def test_form_that_is_wrong_is_refused_with_the_field(
    client: httpx.AsyncClient, served: Serving, data: Any, files: Any, param: str
) -> None:
    answer = await client.post(FILES, data=data, files=files)
    assert error_of(answer) == (422, "invalid_request", param)
    assert served.files.list(purpose=None, after=None, limit=9, newest_first=True) == ([], False)


async def test_purpose_that_is_refused_names_the_known_one(client: httpx.AsyncClient) -> None:
    files = {"file": ("a", lines(PROMPTS))}
    answer = await client.post(FILES, data={"purpose": "batch"}, files=files)
    assert answer.json()["error"]["message"] == (
        "purpose 'batch' is not known; the one for uploads is 'fine-tune'"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/json", b"{}", "multipart/form-data"),
        (None, b"{}", "no Content-Type"),
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=" + "x" * 300, b"", "Boundary length"),
        ("multipart/form-data; boundary=x", b"--y\r\n", "no form"),
        ("multipart/form-data; boundary=x", b"", "breaks off"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\n1\r\n--x--", "no name"),
    ],
)
async def test_body_that_is_no_form_is_refused(
    client: httpx.AsyncClient, content_type: str | None, body: bytes, said: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post(FILES, content=body, headers=headers)
    assert error_of(answer)[:2] == (422, "invalid_request")
    assert said in answer.json()["error"]["message"]


async def test_row_that_is_none_is_refused_and_nothing_kept(
    client: httpx.AsyncClient, served: Serving
) -> None:
    files = {"file": ("a.jsonl", lines([*PROMPTS, {"prompt": 3}]))}
    answer = await client.post(FILES, data=PURPOSE, files=files)
    assert error_of(answer)[:2] == (422, "invalid_request")
    assert served.files.list(purpose=None, after=None, limit=9, newest_first=True) == ([], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 10_001}, "query.limit"),
        ({"order": "newest"}, "query.order"),
        ({"purpose": "vision"}, "query.purpose"),
        ({"after": "../x"}, "query.after"),
        ({"size": 3}, "query.size"),
    ],
)
async def test_query_that_is_wrong_is_refused_with_the_key(
    client: httpx.AsyncClient, query: dict[str, Any], param: str
) -> None:
    assert error_of(await client.get(FILES, params=query)) == (422, "invalid_request", param)


async def test_id_that_cannot_be_one_is_refused(client: httpx.AsyncClient) -> None:
    for path in (f"{FILES}/..%5Cstate", f"{FILES}/{'x' * 65}", f"{FILES}/a.b/content"):
        assert (await client.get(path)).status_code == 422, path
    assert (await client.get(f"{FILES}/unknown")).status_code == 404
    assert (await client.get(FILES, params={"after": "unknown"})).status_code == 404
