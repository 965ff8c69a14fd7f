"""Runs of MAPL from a file of pairs to a folder, with a tiny policy and TRL's own trainer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from steerward.instructions import KINDS
from steerward.policy.local.checkpoint import load_policy
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.protocol.mapl import MaplSettings
from steerward.training.align.instructed import InstructedRun
from steerward.training.align.mapl.data import BuiltRows, TooFewRows
from steerward.training.align.mapl.rows import read_inter_rows, read_intra_rows
from steerward.training.align.run import AlignRun, align
from steerward.training.align.run_folder import read_run
from tests.policies import save_policy
from tests.training.align.test_online import Killed, KilledAt, of_text

WORDS = [
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "about",
    "drops",
    "of",
    "water",
]
SMALL: dict[str, Any] = {
    "batch_size": 24,
    "min_rows_share": 0.0,
    "min_instructions": 1,
    "max_instructions": 2,
    "learning_rate": 1e-3,
    "max_tokens": 8,
    "evaluation_prompts": 2,
    "evaluation_steps": 2,
    "checkpoint_steps": 1,
}


class Unasked:
    """A source of rewards that nobody may ask, as a server that is not there."""

    @property
    def version(self) -> str:
        raise AssertionError("its version was asked for")

    def __call__(self, names: Any) -> Any:
        raise AssertionError(f"rewards were asked for: {names}")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("mapl") / "base", rule=None, positions=512)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = random.Random(0)

    def response() -> str:
        return " ".join(order.choices(WORDS, k=order.randint(4, 12))) + order.choice(".!?")

    path = tmp_path_factory.mktemp("mapl") / "pairs.jsonl"
    rows = (
        {"prompt": f"Tell me {i}.", "chosen": response(), "rejected": response()} for i in range(20)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_of(settings: MaplSettings, base: Path, rows: Path, out: Path) -> AlignRun:
    return AlignRun(settings=settings, base=base, rows=rows, out=out)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_measures_which_instructions_are_followed_and_ends_with_a_policy(
    base: Path, pairs: Path, tmp_path: Path, method: Any
) -> None:
    settings = MaplSettings(method=method, logged=["vowels"], **SMALL)
    run = run_of(settings, base, pairs, tmp_path / "run")
    report = align(run, of_text)
    found = read_run(run.out)
    told: Any = found.settings.model_extra
    assert [*found.settings.objectives] == ["vowels", "instructions_followed"]
    assert [one.step for one in found.evaluations] == [0, 2, report.steps]
    shares = [one for each in found.evaluations for one in each.rewards["instructions_followed"]]
    assert set(shares) <= {0.0, 0.5, 1.0}
    assert {*told["kinds"], *told["held_out_kinds"]} == set(KINDS)
    assert not {*told["kinds"]} & {*told["held_out_kinds"]}
    assert found.log[0].metrics["preference/loss"] == pytest.approx(0.693, abs=1e-3)
    assert any("inter/loss" in one.metrics for one in found.log)
    assert told["rows"]["preference"] == 18
    assert told["rows"]["intra"] > 0
    assert told["notes"]["rows"].startswith("18 preference, ")
    assert set(told["asked_kinds"]) <= {*told["held_out_kinds"]}
    assert sum(told["asked_kinds"].values()) >= told["held_out_prompts"] > 0
    assert report.trained_tokens > 0
    if method == "full":
        assert load_policy(str(run.policy), device="cpu") is not None
    else:
        assert (run.policy / "adapter_model.safetensors").is_file()


def test_kinds_that_are_asked_of_held_out_prompts_are_in_no_row_that_is_learned(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    held_out = ["keywords:existence", "length_constraints:number_words"]
    settings = MaplSettings(**{**SMALL, "held_out_kinds": held_out})
    run = run_of(settings, base, pairs, tmp_path / "run")
    align(run, Unasked())
    told: Any = read_run(run.out).settings.model_extra
    assert told["asked_kinds"]
    assert {*told["asked_kinds"]} <= {*held_out}
    intra = read_intra_rows(run.out / "rows" / "train-intra.jsonl")
    inter = read_inter_rows(run.out / "rows" / "train-inter.jsonl")
    assert (len(intra), len(inter)) == (told["rows"]["intra"], told["rows"]["inter"])
    learned = {one.kind for row in intra for one in row.instructions_chosen}
    learned |= {one.kind for row in intra for one in row.instructions_rejected}
    learned |= {one.kind for row in inter for one in row.instructions}
    assert learned
    assert not learned & {*held_out}


def test_only_whole_batches_are_learned_from(base: Path, pairs: Path, tmp_path: Path) -> None:
    """A last batch of a few rows was a step like any other."""
    settings = MaplSettings(**{**SMALL, "evaluation_prompts": 0}, lambda_intra=0, lambda_inter=0)
    for batch, steps in ((12, 1), (20, 1), (24, 1)):
        changed = settings.model_copy(update={"batch_size": batch})
        report = align(run_of(changed, base, pairs, tmp_path / str(batch)), Unasked())
        assert report.steps == steps


@pytest.mark.parametrize("part", ["intra", "inter"])
def test_a_part_that_does_not_count_is_not_missed(
    base: Path, pairs: Path, tmp_path: Path, part: str
) -> None:
    other = {"intra": "inter", "inter": "intra"}[part]
    settings = MaplSettings(**{**SMALL, f"lambda_{other}": 0.0})
    run = run_of(settings, base, pairs, tmp_path / "run")
    align(run, Unasked())
    told: Any = read_run(run.out).settings.model_extra
    assert told["rows"][part] > 0
    assert told["rows"][other] == 0


def test_a_refused_run_may_come_again_with_other_settings(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    """Its settings were kept before its lengths were looked at."""
    out = tmp_path / "run"
    settings = MaplSettings(**{**SMALL, "max_tokens": 500})
    with pytest.raises(DatasetRefused):
        align(run_of(settings, base, pairs, out), Unasked())
    settings = MaplSettings(**{**SMALL, "micro_batch_size": 7})
    with pytest.raises(InvalidRequest, match="micro_batch_size"):
        align(run_of(settings, base, pairs, out), Unasked())
    assert align(run_of(MaplSettings(**SMALL), base, pairs, out), Unasked()).steps > 0


def test_a_checkpoint_is_of_the_rows_that_were_built(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    """Another version may draw other instructions for the same settings."""
    run = run_of(MaplSettings(**SMALL), base, pairs, tmp_path / "run")
    runner, again = (InstructedRun(run, of_text, None) for _ in range(2))
    assert runner._work_identity() == again._work_identity()
    again._built = BuiltRows(again._built.intra[2:], again._built.inter)
    assert runner._work_identity() != again._work_identity()
    again._built, again._kinds_out = runner._built, runner._kinds_out[1:]
    assert runner._work_identity() != again._work_identity()


def test_a_run_that_was_killed_ends_with_equal_weights(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = MaplSettings(**SMALL)
    whole, broken = (run_of(settings, base, pairs, tmp_path / name) for name in ("a", "b"))
    report = align(whole, Unasked())
    with pytest.raises(Killed):
        align(broken, Unasked(), KilledAt(2))
    assert align(broken, Unasked()) == report
    weights = "model.safetensors"
    assert (broken.policy / weights).read_bytes() == (whole.policy / weights).read_bytes()
    assert align(broken, Unasked()) == report


def test_without_weights_it_learns_from_the_pairs_alone(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = MaplSettings(lambda_intra=0.0, lambda_inter=0.0, **SMALL)
    run = run_of(settings, base, pairs, tmp_path / "run")
    align(run, Unasked())
    found = read_run(run.out)
    told: Any = found.settings.model_extra
    assert told["notes"]["rows"].startswith("18 preference, 0 intra, 0 inter")
    assert not any("intra/loss" in one.metrics for one in found.log)


def test_pairs_that_give_too_few_rows_are_refused(base: Path, pairs: Path, tmp_path: Path) -> None:
    many = {"min_instructions": 20, "max_instructions": 20, "evaluation_prompts": 0}
    settings = MaplSettings(**{**SMALL, **many})
    with pytest.raises(TooFewRows, match="0 of 20 pairs gave intra rows with 20 to 20"):
        align(run_of(settings, base, pairs, tmp_path / "run"), Unasked())


def test_held_out_prompts_that_leave_no_room_for_an_answer_are_refused(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    settings = MaplSettings(**{**SMALL, "max_tokens": 500})
    with pytest.raises(DatasetRefused, match=r"row \d+: the held-out .* max_tokens 500"):
        align(run_of(settings, base, pairs, tmp_path / "run"), Unasked())
