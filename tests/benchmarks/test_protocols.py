"""The benchmark of the protocols reads what their clients read, and counts what groups cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocols import Setting, requests_of, run
from benchmarks.protocols_arrivals import IN_TURN, MIXED, TOGETHER
from benchmarks.protocols_callers import reordered
from benchmarks.protocols_wire import PROTOCOLS, native
from benchmarks.workload import Item, write_checkpoint
from steerward.server.compat import routers


@pytest.mark.e2e
def test_every_protocol_is_timed_against_the_same_samples(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, layers=1, width=64)
    setting = Setting(
        rounds=1, callers="2,4", samples=8, together=4, groups=2, reward_model=str(tmp_path)
    )
    result = run(setting, tmp_path)
    names = {protocol.name for protocol in PROTOCOLS}
    assert result["max_abs_error"].keys() == names
    assert result["callers"].keys() == {"2", "4"}
    for load in result["callers"].values():
        assert load["candidates"] == 8
        assert load["ratio"].keys() == names | {"/v1/score, one sample", "/v1/score, a batch"} | {
            "/v1/score, a group"
        }
    assert len(result["tables"]) == 3
    check_arrivals(result["arrivals"])
    json.dumps(result)


def check_arrivals(arrivals: dict[str, Any]) -> None:
    tokens = arrivals["computed_tokens"]
    needed, unshared = arrivals["needed_tokens"], arrivals["unshared_tokens"]
    assert tokens[TOGETHER] == needed
    assert arrivals["candidates"] == 16
    # 7 of 8 samples find their prompt computed, wherever they arrive between others.
    for way in (IN_TURN, MIXED):
        assert needed <= tokens[way] < (needed + unshared) / 2


def test_requests_of_a_round_hold_the_same_samples_in_every_shape() -> None:
    setting = Setting(samples=8, together=4)
    ones, batches = (requests_of(setting, s, seed="a") for s in ("one sample", "a batch"))
    assert [len(request) for request in ones] == [1] * 8
    assert [item for request in batches for item in request] == [one for (one,) in ones]
    groups = requests_of(setting, "a group", seed="a")
    assert [len(item.candidates) for (item,) in groups] == [4, 4]


def test_words_are_the_same_in_another_order() -> None:
    items = [Item("a b c d e f g h", ["i j k l m n o p"])]
    (found,) = reordered(items, seed="1")
    assert found != items[0]
    assert sorted(found.prompt) == sorted(items[0].prompt)
    assert reordered(items, seed="1") == [found]
    assert reordered(items, seed="2") != [found]


def test_every_route_of_another_protocol_is_measured() -> None:
    served = {route.path for router in routers for route in router.routes}  # pyright: ignore[reportAttributeAccessIssue]
    # Cohere's paths lead to the handler of /rerank; NIM's is that of /v1/chat/completions.
    alike = {"/v1/rerank", "/v2/rerank", "/v1/chat/completions"}
    bare = {path for path in served if not path.startswith(("/compat", "/p/"))} - alike
    measured = {protocol.path for protocol in PROTOCOLS}
    assert bare <= measured
    assert native("a group").path not in measured
