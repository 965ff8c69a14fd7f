"""From files to a report: local and remote, stopped and resumed, with rows that fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steerward.config import EngineConfig
from steerward.evaluation.benchmarks import BENCHMARKS
from steerward.evaluation.rows import BenchmarkRow
from steerward.evaluation.run import Evaluation, evaluate, scores_path
from steerward.evaluation.scorer import Scorer, Steering, local_scorer, server_scorer
from steerward.models.source import resolve_source
from steerward.protocol.errors import (
    EngineFailure,
    InvalidRequest,
    NotFound,
    NotReady,
    SteerwardError,
    UnknownObjective,
)
from steerward.protocol.scoring import ModelCard, ScoreResponse
from tests.evaluation.cases import WHOLE, Fields, pair, write_lines
from tests.golden_cases import GOLDEN, GOLDEN_TOLERANCE
from tests.server.conftest import StartApp, listening, start_app

__all__ = ["start_app"]  # a fixture, used by name below

pytestmark = pytest.mark.anyio

ARMORM = str(GOLDEN / "armorm")
TOO_LONG = pair("hep-go", id="long", chosen="4 " * 300)


def local(reward_model: str = ARMORM, **config: Any) -> Any:
    return local_scorer(reward_model, config=EngineConfig(device="cpu", **config))


def evaluation(name: str, *files: Path, **options: Any) -> Evaluation:
    defaults = {"steering": Steering(), "parallel": 8}
    return Evaluation(benchmark=BENCHMARKS[name], files=files, **{**defaults, **options})


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows: list[Fields] = [
        {**fields, "id": i, "prompt": f"Question {i}?"}
        for i, fields in enumerate(WHOLE["reward-bench"])
    ]
    return write_lines(tmp_path / "pairs.jsonl", rows)


def kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in scores_path(out).read_text().splitlines()]


class Between:
    """A scorer behind what breaks: it fails, or tells of other weights, from some row on."""

    address = None

    def __init__(self, inner: Scorer, answer: Callable[[int, ScoreResponse], ScoreResponse]):
        self._inner = inner
        self._answer = answer
        self.card: ModelCard = inner.card
        self.calls = 0

    async def score(self, row: BenchmarkRow, *, steering: Steering) -> ScoreResponse:
        self.calls += 1
        call = self.calls
        return self._answer(call, await self._inner.score(row, steering=steering))


@asynccontextmanager
async def broken(
    answer: Callable[[int, ScoreResponse], ScoreResponse],
) -> AsyncIterator[Between]:
    async with local() as inner:
        yield Between(inner, answer)


@pytest.mark.parametrize("name", BENCHMARKS)
async def test_every_benchmark_runs_from_file_to_report(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", WHOLE[name])
    out = tmp_path / "report.json"
    report = await evaluate(evaluation(name, path, out=out), local())
    assert report.is_complete
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(report.as_json()))
    assert written["headline"]["value"] == report.outcome.headlines[0].value
    assert written["model"]["weight_version"] == report.card.weight_version
    assert (written["rows"], written["scored"], written["failed"]) == (len(WHOLE[name]),) * 2 + (0,)
    assert written["rule"]["sources"]
    assert len(kept(out)) == 1 + len(WHOLE[name])


@pytest.mark.parametrize(
    "steering",
    [
        Steering(),
        Steering(direction={"helpfulness": 1.0, "verbosity": -0.5}),
        Steering(weights={"helpfulness": 1.0}),
    ],
    ids=["score", "direction", "weights"],
)
async def test_server_and_this_process_give_the_same_scores(
    tmp_path: Path, pairs: Path, start_app: StartApp, steering: Steering
) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    mine = await evaluate(
        evaluation("reward-bench", pairs, steering=steering, out=here), local("pocket")
    )
    async with listening(await start_app(str(resolve_source("pocket")))) as url:
        theirs = await evaluate(
            evaluation("reward-bench", pairs, steering=steering, out=there), server_scorer(url)
        )
    assert theirs.address == url
    assert mine.card.weight_version == theirs.card.weight_version
    assert _scores(here) == pytest.approx(_scores(there), abs=GOLDEN_TOLERANCE)
    assert len(set(_scores(here))) > len(WHOLE["reward-bench"])
    assert mine.outcome == theirs.outcome


def _scores(out: Path) -> list[float]:
    lines = sorted(kept(out)[1:], key=lambda line: line["row"])
    return [score for line in lines for score in line["scores"]]


async def test_row_that_is_too_long_is_told_and_never_cut(tmp_path: Path, pairs: Path) -> None:
    long = write_lines(tmp_path / "long.jsonl", [TOO_LONG, pair("hep-go", id="blank", prompt=" ")])
    report = await evaluate(
        evaluation("reward-bench", pairs, long, out=tmp_path / "report.json"),
        local(max_input_tokens=128),
    )
    one, other = report.failures
    assert (one.file, one.row, one.id, one.subset) == ("long.jsonl", 0, "long", "hep-go")
    assert one.code == "input_too_long"
    assert "128" in one.message
    assert (other.id, other.code) == ("blank", "invalid_request")
    assert not report.is_complete
    assert report.gaps == ["2 of 25 rows could not be scored"]
    assert json.loads((tmp_path / "report.json").read_text())["failures"][0]["id"] == "long"


async def test_failed_row_of_a_server_is_told_as_one_of_here(
    tmp_path: Path, start_app: StartApp
) -> None:
    path = write_lines(tmp_path / "long.jsonl", [TOO_LONG, pair("hep-go")])
    async with listening(await start_app(max_input_tokens=128)) as url:
        report = await evaluate(evaluation("reward-bench", path), server_scorer(url))
    assert [(failure.id, failure.code) for failure in report.failures] == [
        ("long", "input_too_long")
    ]


async def test_stopped_run_goes_on_where_it_was(tmp_path: Path, pairs: Path) -> None:
    out = tmp_path / "report.json"
    whole = await evaluate(evaluation("reward-bench", pairs, out=out), local())
    lines = scores_path(out).read_text().splitlines(keepends=True)
    # A kill after nine rows, in the middle of the tenth; one kept score is marked.
    first = {**json.loads(lines[1]), "scores": [-7.0, 7.0]}
    kept_lines = [lines[0], json.dumps(first) + "\n", *lines[2:10], lines[10][:20]]
    scores_path(out).write_text("".join(kept_lines))
    out.unlink()

    again = await evaluate(evaluation("reward-bench", pairs, out=out), local())
    found = {line["row"]: line for line in kept(out)[1:]}
    assert set(found) == set(range(len(WHOLE["reward-bench"])))
    assert found[first["row"]]["scores"] == [-7.0, 7.0]  # not scored again
    assert again.rows == whole.rows
    marked = WHOLE["reward-bench"][first["row"]]["subset"]
    values = {n.name: n.value for g in again.outcome.groups for n in g.numbers}
    assert values[marked] == 0.0


async def test_machine_at_fault_ends_the_run_and_keeps_the_scores(
    tmp_path: Path, pairs: Path
) -> None:
    def fail(call: int, response: ScoreResponse) -> ScoreResponse:
        if call > 5:
            raise NotReady("the device is gone")
        return response

    out = tmp_path / "report.json"
    asked = evaluation("reward-bench", pairs, out=out, parallel=1)
    with pytest.raises(NotReady, match=r"pairs.jsonl, row 5 \(id 5\): the device is gone. Scores"):
        await evaluate(asked, broken(fail))
    assert not out.exists()
    assert [line["row"] for line in kept(out)[1:]] == [0, 1, 2, 3, 4]
    assert (await evaluate(asked, local())).is_complete


async def test_batch_that_failed_is_tried_once_more(pairs: Path) -> None:
    def fail_once(call: int, response: ScoreResponse) -> ScoreResponse:
        if call == 3:
            raise EngineFailure("the batch failed")
        return response

    report = await evaluate(evaluation("reward-bench", pairs), broken(fail_once))
    assert report.is_complete


async def test_weights_that_change_on_the_way_end_the_run(pairs: Path) -> None:
    def change(call: int, response: ScoreResponse) -> ScoreResponse:
        return response.model_copy(update={"weight_version": "other"} if call > 3 else {})

    with pytest.raises(SteerwardError, match="scored by weights other, the rows before by"):
        await evaluate(evaluation("reward-bench", pairs), broken(change))


async def test_scores_of_another_run_are_not_mixed_in(tmp_path: Path, pairs: Path) -> None:
    out = tmp_path / "report.json"
    await evaluate(evaluation("reward-bench", pairs, out=out), local())
    steered = Steering(direction={"objective_0": 1.0})
    other = evaluation("reward-bench", pairs, out=out, steering=steered)
    with pytest.raises(InvalidRequest, match="begun with another direction; choose another"):
        await evaluate(other, local())
    over = evaluation("reward-bench", pairs, out=out, steering=steered, overwrite=True)
    assert (await evaluate(over, local())).steering.measured == "direction_score"


async def test_report_of_unknown_scores_is_not_replaced(tmp_path: Path, pairs: Path) -> None:
    out = tmp_path / "report.json"
    out.write_text("precious")
    with pytest.raises(InvalidRequest, match="exists without the scores of a run"):
        await evaluate(evaluation("reward-bench", pairs, out=out), local())
    assert out.read_text() == "precious"


async def test_foreign_file_in_the_place_of_the_scores_stays(tmp_path: Path, pairs: Path) -> None:
    out = tmp_path / "report.json"
    scores_path(out).write_text("precious\n")
    with pytest.raises(InvalidRequest, match="is no file of scores"):
        await evaluate(evaluation("reward-bench", pairs, out=out), local())
    assert scores_path(out).read_text() == "precious\n"


@pytest.mark.parametrize(
    ("data", "out", "reason"),
    [
        ("pairs.jsonl", "pairs.jsonl", "would replace the data"),
        (".", "report.json", "in the folder of the data"),
        ("pairs.jsonl", "absent/report.json", "there is no folder"),
    ],
    ids=["same", "beside", "nowhere"],
)
async def test_report_never_replaces_or_becomes_data(
    tmp_path: Path, pairs: Path, data: str, out: str, reason: str
) -> None:
    asked = evaluation("reward-bench", tmp_path / data, out=tmp_path / out, overwrite=True)
    with pytest.raises(InvalidRequest, match=reason):
        await evaluate(asked, local())
    assert pairs.stat().st_size


async def test_what_fails_in_every_row_is_no_failure_of_rows(pairs: Path) -> None:
    unknown = Steering(direction={"kindness": 1.0})
    with pytest.raises(UnknownObjective, match="kindness"):
        await evaluate(evaluation("reward-bench", pairs, steering=unknown), local())


async def test_model_without_a_score_of_its_own_needs_weights(pairs: Path) -> None:
    model = str(GOLDEN / "seqcls-mistral-10")
    with pytest.raises(InvalidRequest, match="10 objectives and no gate.*--weights or --direction"):
        await evaluate(evaluation("reward-bench", pairs), local(model))


async def test_model_of_a_server_is_chosen_by_name(pairs: Path, start_app: StartApp) -> None:
    asked = evaluation("reward-bench", pairs)
    async with listening(await start_app("armorm", "urm")) as url:
        with pytest.raises(NotFound, match="has armorm, urm; name one with --model"):
            await evaluate(asked, server_scorer(url))
        with pytest.raises(NotFound, match="'pocket'"):
            await evaluate(asked, server_scorer(url, model="pocket"))
        report = await evaluate(asked, server_scorer(url, model="armorm"))
    assert report.card.id == "armorm"
