"""The benchmark of fine-tuning jobs counts what it says, on servers and jobs that are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import rsf
from benchmarks.rsf_answers import rule_of
from benchmarks.rsf_shares import BEGINNING, REPORT, REST, STEPS
from benchmarks.rsf_speed import OURS, angles_of
from benchmarks.rsf_swap import EXCHANGED, Span, summarise

TINY = rsf.Setting(
    rounds=1,
    num_prompts=4,
    candidates=2,
    directions=2,
    max_tokens=40,
    plain_batches="4",
    iterations=1,
    prompts_per_iteration=6,
    evaluation_prompts=2,
    swaps=2,
    swap_every_s=2.5,
    swap_clients=2,
    swap_max_tokens=4,
)


@pytest.mark.e2e
def test_speed_shares_and_swaps_of_a_tiny_job(tmp_path: Path) -> None:
    result = rsf.run(TINY, tmp_path)
    speed, shares, swap = (result[name] for name in ("speed", "shares", "swap"))
    assert [row[0] for row in result["tables"][0]["rows"]] == list(speed["samples_per_s"])
    assert set(speed["times_as_fast"]) == set(speed["samples_per_s"]) - {OURS}
    for rounds in speed["rounds"].values():
        assert [one["samples"] for one in rounds] == [8]
        assert 8 <= rounds[0]["tokens"] <= 8 * 40
    assert sum(shares["shares"].values()) == pytest.approx(1.0)
    assert list(shares["seconds"]) == [*STEPS, BEGINNING, REPORT, REST]
    assert all(shares["seconds"][step] > 0 for step in ("sampling", "training", "swap"))
    assert [one["sampled"] for one in shares["iterations"]] == [0, 12]
    assert swap["failed"] == []
    assert swap["failed_swaps"] == 0
    assert len(swap["swap_s"]) == 2
    near, quiet = swap["latency_s"]["near"], swap["latency_s"]["quiet"]
    assert near["requests"] + quiet["requests"] == swap["requests"] > 0


def test_requests_are_near_a_swap_or_in_quiet_times() -> None:
    def request(begin_s: float, end_s: float, *, status: int = 200) -> Span:
        return Span(begin_s, end_s, EXCHANGED, status)

    before, during, long = request(8.0, 8.9), request(9.5, 9.7), request(5.0, 9.1)
    after, later = request(11.1, 11.2), request(11.6, 11.7, status=503)
    result = summarise([before, during, long, after, later], [Span(10.0, 10.5, EXCHANGED, 200)])
    assert result["latency_s"]["near"]["requests"] == 3
    assert result["latency_s"]["quiet"]["requests"] == 2
    assert result["latency_s"]["near"]["max"] == pytest.approx(4.1)
    assert result["p99_ratio"] == pytest.approx(4.1 / 0.9)
    assert [one["status"] for one in result["failed"]] == [503]


def test_without_quiet_times_there_is_no_ratio() -> None:
    result = summarise([Span(0.0, 1.0, EXCHANGED, 200)], [Span(0.5, 0.6, EXCHANGED, 200)])
    assert result["p99_ratio"] is None
    assert result["latency_s"]["quiet"] == {
        "requests": 0,
        "p50": None,
        "p90": None,
        "p99": None,
        "max": None,
    }


def test_prompts_of_a_round_are_in_no_other() -> None:
    rounds = [set(rsf.prompts_of(TINY, number, 20)) for number in range(-2, 3)]
    assert {len(prompts) for prompts in rounds} == {20}
    assert len(set.union(*rounds)) == 100


def test_directions_are_even_over_the_cone() -> None:
    rule = rule_of("pocket-policy")
    assert angles_of(rule, 3) == [-45.0, 0.0, 45.0]
    assert angles_of(rule, 1) == [0.0]
