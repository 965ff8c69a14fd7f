"""The reference is computed once, as TRL would, and never taken for another."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from steerward.protocol.errors import DatasetRefused
from steerward.training.align.modpo.reference_trainer import with_reference
from tests.policies import save_policy
from tests.training.align.modpo.cases import TRAINING, pairs, trainer


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny")


def test_reference_is_computed_once(
    policy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "reference.safetensors"
    first = with_reference(pairs(), policy=policy, training=TRAINING, cache=cache)
    assert "reference log probs" in capfd.readouterr().err
    again = with_reference(pairs(), policy=policy, training=TRAINING, cache=cache)
    assert "reference log probs" not in capfd.readouterr().err
    assert again["ref_chosen_logps"] == first["ref_chosen_logps"]
    other = with_reference(
        pairs(),
        policy=policy,
        training={**TRAINING, "ld_alpha": 0.5},
        cache=cache,
    )
    assert "reference log probs" in capfd.readouterr().err
    assert other["ref_chosen_logps"] != first["ref_chosen_logps"]
    expected = trainer(policy, tmp_path, precompute_ref_log_probs=True).train_dataset
    assert expected["ref_chosen_logps"] == first["ref_chosen_logps"]


def test_pairs_that_are_cut_to_nothing_are_left_out(
    policy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = [len(row["prompt_ids"]) for row in trainer(policy, tmp_path).train_dataset]
    limit = sorted(lengths)[3]
    with caplog.at_level(logging.WARNING):
        kept = with_reference(pairs(), policy=policy, training={**TRAINING, "max_length": limit})
    assert len(kept) == sum(length < limit for length in lengths)
    assert "are left out: their prompts fill" in caplog.text
    with pytest.raises(DatasetRefused, match="no pairs, or the prompt of each fills max_length 2"):
        with_reference(pairs(), policy=policy, training={**TRAINING, "max_length": 2})
