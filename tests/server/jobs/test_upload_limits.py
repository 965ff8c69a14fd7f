"""Large uploads: memory stays small, limits hold, and an upload that ends early leaves nothing."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import listening
from tests.server.jobs.serving import FILES, MOST_FILE_BYTES, Serving

pytestmark = pytest.mark.anyio

HEAD = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
)
FORM = {"content-type": "multipart/form-data; boundary=x"}
ROW = json.dumps({"prompt": "word " * 2000}).encode() + b"\n"


async def form(num_bytes: int, *, end: bytes = b"\r\n--x--\r\n") -> AsyncIterator[bytes]:
    """A form with about so many bytes of rows, in small pieces."""
    yield HEAD
    for _ in range(num_bytes // len(ROW)):
        yield ROW
    yield end


async def test_large_file_is_taken_with_little_memory(client: httpx.AsyncClient) -> None:
    tracemalloc.start()
    try:
        answer = await client.post(FILES, content=form(20_000_000), headers=FORM)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 200, answer.text
    assert answer.json()["bytes"] > 19_900_000
    assert peak < 6_000_000


async def test_file_over_the_limit_is_refused_as_it_comes(client: httpx.AsyncClient) -> None:
    answer = await client.post(FILES, content=form(MOST_FILE_BYTES + 200_000), headers=FORM)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "input_too_long"
    assert "--max-file-bytes" in answer.json()["error"]["message"]
    assert (await client.get(FILES)).json()["data"] == []


async def test_other_routes_keep_the_smaller_limit(client: httpx.AsyncClient) -> None:
    headers = {"content-length": str(33 * 1024 * 1024), "content-type": "application/json"}
    answer = await client.post("/v1/fine_tuning/jobs", content=b"{}", headers=headers)
    assert answer.status_code == 413
    assert "--max-body-bytes" in answer.json()["error"]["message"]


async def test_form_that_breaks_off_leaves_nothing(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    answer = await client.post(FILES, content=form(1_000_000, end=b""), headers=FORM)
    assert answer.status_code == 422
    assert "breaks off" in answer.json()["error"]["message"]
    assert (await client.get(FILES)).json()["data"] == []
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


async def test_client_that_leaves_in_mid_upload_leaves_nothing(
    served: Serving, tmp_path: Path
) -> None:
    async with listening(served.app) as url:
        _, _, port = url.rpartition(":")
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        head = f"POST {FILES} HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n"
        writer.write(f"{head}Content-Type: {FORM['content-type']}\r\n\r\n".encode())
        writer.write(HEAD + ROW * 200)
        await writer.drain()
        async with asyncio.timeout(30.0):
            while not stored(tmp_path):
                await asyncio.sleep(0.01)
            writer.close()
            await writer.wait_closed()
            while stored(tmp_path):
                await asyncio.sleep(0.01)
    found, _ = served.files.list(purpose=None, after=None, limit=9, newest_first=True)
    assert found == []


def stored(folder: Path) -> list[Path]:
    return [path for path in (folder / "files").rglob("*") if path.is_file()]
