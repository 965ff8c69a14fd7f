"""Runs of MODPO whose margins are implicit rewards of adapters that DPO trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from steerward.protocol.alignment import CgpoSettings, ModpoSettings
from steerward.protocol.errors import (
    CheckpointRefused,
    DatasetRefused,
    InvalidRequest,
    UnknownObjective,
)
from steerward.training.align.modpo.implicit_rewards import AdapterMargins
from steerward.training.align.modpo.margins import Response
from steerward.training.align.run import AlignRun, align
from steerward.training.align.run_folder import read_run
from tests.policies import save_policy
from tests.training.align.modpo.cases import lora, parts
from tests.training.align.test_online import of_text
from tests.training.align.test_pairwise import QUICK, pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("modpo") / "base", rule=None)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapter") / "policy"
    get_peft_model(parts(base)["model"], lora()).save_pretrained(str(folder))
    return folder


def nobody(names: Sequence[str]) -> Sequence[Any]:
    raise AssertionError(f"asked for {names}")


def run_of(base: Path, folder: Path, adapters: dict[str, Path], **settings: Any) -> AlignRun:
    """Return a run whose rows lie in a folder."""
    rows = folder / "pairs.jsonl"
    return AlignRun(
        settings=ModpoSettings(**{**QUICK, "batch_size": 20, **settings}),
        base=base,
        rows=rows if rows.exists() else pairs(rows),
        out=folder / "run",
        margin_adapters=adapters,
    )


def margin_of(base: Path, adapter: Path, *, beta: float) -> float:
    """Return the mean size of the implicit reward's difference over the pairs."""
    source = AdapterMargins(base, {"brevity": adapter}, beta=beta)
    sides = (
        [
            Response([{"role": "user", "content": f"Tell me {i}."}], [turn(text, i)], {})
            for i in range(20)
        ]
        for text in ("Fine {}.", "No and no.")
    )
    chosen, rejected = (source.rewards(side)["brevity"] for side in sides)
    differences = torch.tensor(chosen) - torch.tensor(rejected)
    return differences.abs().mean().item()


def turn(text: str, number: int) -> dict[str, str]:
    return {"role": "assistant", "content": text.format(number)}


@pytest.mark.parametrize(("margin_beta", "expected"), [(None, 0.1), (0.4, 0.4)])
def test_all_margins_may_come_from_adapters_and_then_no_rewards_are_asked_for(
    base: Path, adapter: Path, tmp_path: Path, margin_beta: float | None, expected: float
) -> None:
    run = run_of(base, tmp_path, {"brevity": adapter}, margins={"brevity": -0.5}, weight=0.5)
    align(replace(run, margin_beta=margin_beta), nobody)
    found = read_run(run.out)
    size = margin_of(base, adapter, beta=expected)
    assert size > 0
    assert found.log[0].metrics["modpo/margin/less_brevity"] == pytest.approx(size, rel=1e-4)
    assert found.log[0].metrics["modpo/margin"] == pytest.approx(0.5 * size, rel=1e-4)
    told = found.settings.model_extra or {}
    assert told["weights"] == {"less_brevity": 0.5}
    assert told["margin_beta"] == expected
    assert told["reward_model"] is None
    assert (run.out / "margins.jsonl").is_file()


def test_adapters_and_rewards_share_the_margins_whatever_their_order(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    """Also where rows bring the rest: the same numbers, by name."""
    sizes = []
    texts = [(f"Fine {i}.", "No and no.") for i in range(20)]
    brought = [
        {
            "prompt": f"Tell me {i}.",
            "chosen": one,
            "rejected": other,
            "margin_chosen": {"length": len(one)},
            "margin_rejected": [len(other)],
        }
        for i, (one, other) in enumerate(texts)
    ]
    for name, weights in (("a", {"brevity": 0.3, "length": -0.2}), ("b", {"length": -0.2})):
        (tmp_path / name).mkdir()
        run = run_of(
            base,
            tmp_path / name,
            {"brevity": adapter},
            margins={**weights, "brevity": 0.3},
            logged=["vowels"],
        )
        if name == "b":
            run.rows.write_text("".join(json.dumps(row) + "\n" for row in brought))
        align(run, of_text)
        metrics = read_run(run.out).log[0].metrics
        told = read_run(run.out).settings.model_extra or {}
        assert list(told["weights"].items()) == [("less_length", 0.2), ("brevity", 0.3)]
        sizes.append([metrics[f"modpo/margin{one}"] for one in ("", "/less_length", "/brevity")])
    assert sizes[0][1] == pytest.approx(2.5, abs=0.5)
    assert sizes[0][2] == pytest.approx(margin_of(base, adapter, beta=0.1), rel=1e-4)
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_another_adapter_or_beta_is_another_run(base: Path, adapter: Path, tmp_path: Path) -> None:
    run = run_of(base, tmp_path, {"brevity": adapter}, margins={"brevity": 1.0})
    changed = tmp_path / "changed"
    get_peft_model(parts(base)["model"], lora()).save_pretrained(str(changed))
    plain = replace(run, margin_adapters={})
    found = {
        one.identity(None)
        for one in (
            plain,
            run,
            replace(run, margin_beta=0.2),
            replace(run, margin_adapters={"brevity": changed}),
        )
    }
    assert len(found) == 4
    copied = Path(adapter).parent / "copied"
    copied.mkdir()
    for path in adapter.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    again = replace(run, margin_adapters={"brevity": copied})
    assert again.identity(None) == run.identity(None)


def test_what_does_not_fit_is_refused_before_anything_is_computed(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    run = run_of(base, tmp_path, {"brevity": adapter}, margins={"brevity": 1.0})
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"margin_adapters": {"charm": adapter}}, UnknownObjective, "names 'charm'"),
        ({"margin_adapters": {"brevity": base}}, CheckpointRefused, "holds no adapter"),
        ({"margin_beta": 0.0}, InvalidRequest, "margin_beta 0 is"),
        ({"margin_adapters": {}, "margin_beta": 0.1}, InvalidRequest, "that of 0 adapters"),
        ({"settings": CgpoSettings()}, InvalidRequest, "are of MODPO, and this is a run of cgpo"),
    ]
    for changes, kind, message in cases:
        with pytest.raises(kind, match=message):
            align(replace(run, **changes), nobody)
    assert not run.out.exists()


def test_margin_that_comes_from_rows_and_adapters_is_refused(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    both = {"margin_chosen": {"brevity": 1.0}, "margin_rejected": {"brevity": 1.0}}
    pairs(tmp_path / "pairs.jsonl", **both)
    run = run_of(base, tmp_path, {"brevity": adapter}, margins={"brevity": 1.0})
    with pytest.raises(DatasetRefused, match="pair 0 has margin_chosen of brevity, whose"):
        align(run, nobody)
    pairs(tmp_path / "pairs.jsonl", margin_chosen=1.0, margin_rejected=0.0)
    with pytest.raises(DatasetRefused, match="all margins come from adapters"):
        align(run, nobody)
