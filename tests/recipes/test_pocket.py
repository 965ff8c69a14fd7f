"""The recipe of pocket from end to end on small data of our own, in the sources' own shape."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from recipes.pocket.__main__ import LEFT_OUT
from recipes.pocket.card import write_card
from recipes.pocket.start import write_start
from recipes.pocket.steps import OBJECTIVES, Run, _minilm, measure, train
from steerward.models.checkpoint import load_backbone, load_reward_model
from steerward.models.packing import group_conversations
from steerward.models.plan import pack
from steerward.protocol.errors import CheckpointRefused

_ROWS = 120
_GOOD = ["clear", "careful", "useful", "exact", "kind", "honest"]
_BAD = ["rude", "vague", "wrong", "harsh", "lazy", "false"]
# Sources of pairs, and a category that the objectives file knows.
_PAIR_SOURCES = {
    "hh_harmless": "harmlessness", "truthfulqa": "truthfulness", "lamp": "writing_quality",
    "qa_feedback": "long_form_qa", "qlora_vicuna": "quality", "pandalm": "instruction_following",
    "open_instruct_human": "instruction_following", "oasst_sample": "quality",
}  # fmt: skip


def words(rng: random.Random, quality: float) -> str:
    count = rng.randint(3, 12)
    return " ".join(rng.choice(_GOOD if rng.random() < quality else _BAD) for _ in range(count))


def attributes() -> Mapping[str, dict[str, tuple[float, float]]]:
    """Return the attributes of every rating source, with the values for bad and good."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for sources in json.loads(OBJECTIVES.read_text()).values():
        for one in sources:
            if "attribute" in one:
                found.setdefault(one["source"], {})[one["attribute"]] = (one["low"], one["high"])
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def common(source: str, i: int) -> dict[str, Any]:
    # One source has the same prompt throughout, as creative writing often has.
    prompt = "Write something." if source == "lamp" else f"{source} asks {i}"
    return {
        "id": f"{source}-{i}",
        "source": source,
        "split": "train" if i % 4 else "test",
        "messages": [{"role": "user", "content": prompt}],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    for source, ranges in attributes().items():
        rows: list[dict[str, Any]] = []
        for i in range(_ROWS):
            quality = rng.random()
            ratings = {name: low + quality * (high - low) for name, (low, high) in ranges.items()}
            rows.append(common(source, i) | {"response": words(rng, quality), "ratings": ratings})
        write(folder / "ratings" / f"{source}.jsonl.gz", rows)
    for source, category in _PAIR_SOURCES.items():
        rows = [
            common(source, i)
            | {"chosen": words(rng, 0.9), "rejected": words(rng, 0.1), "category": category}
            for i in range(_ROWS)
        ]
        write(folder / "pairs" / f"{source}.jsonl.gz", rows)
    return folder


def test_recipe_runs_to_a_checkpoint_with_its_card(data: Path, tmp_path: Path) -> None:
    whole = Run(data, tmp_path / "whole", steps=3, seed=0)
    partial = Run(data, tmp_path / "partial", steps=2, seed=0, left_out=LEFT_OUT, max_rows=80)
    for run in (whole, partial):
        train(run)
        measure(run)
    write_card(whole, partial)
    model = load_reward_model(whole.checkpoint, device="cpu")
    assert {"helpfulness", "verbosity", "writing_quality"} <= set(model.objectives.names)
    assert model.objectives.has_reference
    card = (whole.checkpoint / "README.md").read_text()
    report = json.loads((whole.checkpoint / "report.json").read_text())
    assert report["weight_version"] == model.weight_version
    assert f"weight version\n`{model.weight_version}`" in card
    assert report["pairs"]["score"]["pairs"] == _ROWS // 4 * len(_PAIR_SOURCES)
    unseen = json.loads((whole.checkpoint / "report-unseen.json").read_text())
    assert set(unseen["pairs"]["score"]["sources"]) == set(LEFT_OUT)
    assert unseen["pairs"]["score"]["pairs"] == _ROWS * len(LEFT_OUT)
    # Done again, it only refits what is quick, to the same weights; what another run has left
    # is not gone on with.
    train(whole)
    assert load_reward_model(whole.checkpoint, device="cpu").weight_version == model.weight_version
    with pytest.raises(CheckpointRefused, match="with other steps"):
        train(replace(whole, steps=4))


def test_start_is_minilm_read_causally(tmp_path: Path) -> None:
    """Up to 512 positions nothing is new: hidden states are those of the decoder BertModel."""
    write_start(_minilm(), tmp_path / "start", positions=1024)
    backbone, chat = load_backbone(tmp_path / "start", device="cpu", dtype="float32")
    assert backbone.max_positions == 1024
    (conversation,) = chat.encode([{"role": "user", "content": "a\nb"}], ["c"])
    tokens = AutoTokenizer.from_pretrained(tmp_path / "start").convert_ids_to_tokens(
        conversation.ids
    )
    assert tokens == ["[CLS]", "[USER]", "a", "↵", "b", "[SEP]", "[ASSISTANT]", "c", "[SEP]"]
    batch = pack(group_conversations([conversation]))
    from transformers import BertModel

    plain = BertModel.from_pretrained(
        _minilm(), is_decoder=True, add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        expected = plain(batch.input_ids_T[None]).last_hidden_state[0]
        torch.testing.assert_close(backbone.all_states(batch), expected, atol=1e-4, rtol=1e-4)
