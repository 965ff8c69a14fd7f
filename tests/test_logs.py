"""Logs carry request ids, and never a prompt."""

from __future__ import annotations

import json
import logging

import pytest

from steerward import logs


@pytest.mark.parametrize("form", ["text", "json"])
def test_record_has_its_fields(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", form)
    token = logs.request_id.set("req-9")
    logging.getLogger("steerward.test").info("scored %d", 3, extra={"duration_ms": 1.5})
    logs.request_id.reset(token)
    logging.getLogger("steerward.test").debug("too quiet")
    (line,) = capsys.readouterr().err.splitlines()
    if form == "json":
        record = json.loads(line)
        assert record["message"] == "scored 3"
        assert record["request_id"] == "req-9"
        assert record["duration_ms"] == 1.5
    else:
        assert "scored 3" in line
        assert "request_id=req-9 duration_ms=1.5" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_exception_is_kept(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", form)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("steerward.test").exception("it failed")
    assert "RuntimeError: broken" in capsys.readouterr().err
