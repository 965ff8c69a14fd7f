"""Every benchmark runs at a tiny size and finds what it says it measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    ablation,
    classifiers,
    concurrency,
    dtypes,
    growth,
    latency,
    mixed_load,
    repeats,
    timeline,
)
from benchmarks.stages import STAGES
from benchmarks.subjects import ALONE, ENGINE, HTTP
from benchmarks.switches import EVERYTHING_ON, apart
from benchmarks.workload import Item
from docs.figures import PAGES, ROOT

TINY: dict[str, Any] = {"layers": 1, "width": 64}


def row_names(result: dict[str, Any]) -> list[str]:
    return [row[0] for row in result["tables"][0]["rows"]]


@pytest.mark.e2e
def test_concurrency(tmp_path: Path) -> None:
    result = concurrency.run(concurrency.Setting(rounds=1, requests=6, clients=3, **TINY), tmp_path)
    assert row_names(result)[:2] == [concurrency.STEERWARD, concurrency.SERIAL]
    # One short text a request: nothing is shared and nothing is padded.
    needed = result["needed_tokens"]
    assert result["computed_tokens"][concurrency.STEERWARD] == needed
    assert result["computed_tokens"][concurrency.SERIAL] == needed
    assert result["candidates"] == 6


@pytest.mark.e2e
def test_classifiers(tmp_path: Path) -> None:
    result = classifiers.run(classifiers.Setting(rounds=1, requests=4, clients=2, **TINY), tmp_path)
    assert row_names(result)[:2] == [ALONE, classifiers.STEERWARD]
    assert result["candidates"] == 4


def test_repeats(tmp_path: Path) -> None:
    setting = repeats.Setting(
        rounds=1, prompts=2, candidates=2, prompt_tokens=24, candidate_tokens=8, **TINY
    )
    result = repeats.run(setting, tmp_path)
    assert {f"{ENGINE}, first pass", f"{ENGINE}, second pass"} <= set(row_names(result))
    needed = result["needed_tokens"]
    assert needed["first"] - needed["second"] >= 2 * 24
    first, second = setting.passes(0)
    assert [item.prompt for item in first] == [item.prompt for item in second]
    assert {item.prompt for item in first}.isdisjoint(item.prompt for item in setting.passes(1)[0])


def test_growth(tmp_path: Path) -> None:
    setting = growth.Setting(rounds=1, most_candidates=4, longest_prompt=128, **TINY)
    result = growth.run(setting, tmp_path)
    assert row_names(result) == ["1", "4"]
    four = result["series"]["candidates"]["4"]
    assert four["computed_tokens"][ENGINE] == four["needed_tokens"]
    assert four["computed_tokens"][ALONE] > 2 * four["needed_tokens"]


@pytest.mark.e2e
def test_latency(tmp_path: Path) -> None:
    result = latency.run(latency.Setting(rounds=1, requests=2, **TINY), tmp_path)
    assert row_names(result) == [latency.FORWARD, ENGINE, HTTP, latency.CLIENT, latency.ADDED]
    assert {len(times) for times in result["seconds"].values()} == {2}


@pytest.mark.e2e
def test_mixed_load_counts_every_request(tmp_path: Path) -> None:
    setting = mixed_load.Setting(load_s=0.2, probes=20, timeout_s=30.0, **TINY)
    result = mixed_load.run(setting, tmp_path)
    assert row_names(result) == ["50%", "80%", "120%"]
    for load in result["loads"]:
        assert sum(load["statuses"].values()) == load["requests"] == len(load["outcomes"])
        assert load["resident_mib_before"] <= load["peak_mib"] + 1
        assert load["statuses"].keys() <= {"200", "429", "504"}


def test_mixed_load_deals_the_same_mix_again() -> None:
    sizes = [len(item.candidates) for item in mixed_load.mixed_items(40, seed=1)]
    assert sorted(sizes[:20]) == sorted(sizes[20:]) == [*[1] * 14, *[8] * 5, 64]


def test_ablation(tmp_path: Path) -> None:
    setting = ablation.Setting(rounds=1, singles=2, groups=1, wide=1, prompts=1, **TINY)
    result = ablation.run(setting, tmp_path)
    assert {EVERYTHING_ON, "prompts not shared"} <= set(row_names(result))
    tokens = result["workloads"]["groups of 8"]["computed_tokens"]
    assert tokens["prompts not shared"] > 2 * tokens[EVERYTHING_ON]


def test_prompts_apart_keep_their_lengths() -> None:
    parted = apart([Item("a b", ["x", "y"]), Item("c d", ["z"])])
    assert [item.candidates for item in parted] == [["x"], ["y"], ["z"]]
    assert [len(item.prompt) for item in parted] == [3, 3, 3]
    assert len({item.prompt for item in parted}) == 3


def test_dtypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = dtypes.Setting(
        rounds=1, dtypes="float32,bfloat16,float1", groups=1, questions=2, **TINY
    )
    result = dtypes.run(setting, tmp_path)
    assert row_names(result) == ["float32", "bfloat16"]
    assert "float1: left out" in capsys.readouterr().err
    for model in result["models"].values():
        assert model["order_agreement"]["float32"] == 1.0
        assert model["max_abs_error"]["bfloat16"] > 0.0
    assert result["models"]["pocket"]["candidates"] == 10


def test_order_agreement_counts_pairs_of_one_prompt() -> None:
    items = [Item("p", ["a", "b", "c"]), Item("q", ["d", "e"])]
    agreement = dtypes.order_agreement(items, [1, 2, 3, 0, 9], [1, 3, 2, 5, 6])
    assert agreement == 3 / 4


def test_timeline(tmp_path: Path) -> None:
    picture = tmp_path / "timeline.png"
    result = timeline.run(timeline.Setting(picture=str(picture), groups=1, **TINY), tmp_path)
    shares = result["milliseconds"]
    assert set(STAGES) < set(shares)
    assert all(ms >= 0 for ms in shares.values())
    assert picture.stat().st_size > 1000


def test_every_benchmark_has_its_place_in_the_documentation() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for path in (ROOT / "benchmarks").glob("*.py"):
        if "main(Setting, run)" in path.read_text():
            assert f"<!-- figures: {path.stem} -->" in pages
