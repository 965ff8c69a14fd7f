"""Checkpoints load, save and load again as the same model, under the right names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steerward.gating.network import GatingNetwork
from steerward.models.checkpoint import load_reward_model, resolve_dtype
from steerward.models.heads import HeadParts, RewardHeads
from steerward.models.native import HEADS_FILE, BackboneReference, save_heads
from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, NotFound
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale
from tests.checkpoints import TOKENIZER_FILES, edit_config, edit_tensors
from tests.golden_cases import GOLDEN, golden_cases

OBJECTIVES = ObjectiveSet(
    objectives=(
        Objective(
            name="helpfulness",
            rating=RatingScale(label="1..5", multiplier=4.0, offset=1.0),
            reference_mean=0.5,
            reference_std=0.2,
            description="How helpful a rater found it.",
        ),
        Objective(name="verbosity", reference_mean=0.1, reference_std=0.3),
    )
)
MESSAGES = golden_cases("armorm")[0]["messages"]


def parts(hidden_size: int = 64) -> HeadParts:
    torch.manual_seed(1)
    gate = GatingNetwork.random(
        hidden_size=hidden_size,
        gate_hidden_size=16,
        num_hidden_layers=2,
        num_objectives=2,
        temperature=3.0,
        scale=1.5,
    )
    return HeadParts(
        "steerward",
        RewardHeads(torch.randn(2, hidden_size), torch.randn(2)),
        gate,
        torch.tensor([[1.0, 0.0], [-0.3, 0.0]]),
    )


def native_checkpoint(folder: Path, **options: Any) -> HeadParts:
    """Write a checkpoint of our own format with ArmoRM's golden backbone."""
    shutil.copytree(GOLDEN / "armorm", folder)

    def keep_backbone(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if not key.startswith("model.")]:
            del tensors[key]

    edit_tensors(folder, keep_backbone)
    written = parts()
    save_heads(folder, written, objectives=OBJECTIVES, **options)
    return written


def test_save_then_load_is_the_identity(tmp_path: Path) -> None:
    written = native_checkpoint(tmp_path / "own", details={"trained_on": "nothing"})
    model = load_reward_model(tmp_path / "own", device="cpu")
    assert model.architecture == "steerward"
    assert model.objectives == OBJECTIVES
    assert torch.equal(model.heads.weight, written.heads.weight)
    assert model.heads.bias is not None
    assert written.heads.bias is not None
    assert torch.equal(model.heads.bias, written.heads.bias)
    assert torch.equal(model.transform, written.transform_KK)
    assert model.gate is not None
    assert written.gate is not None
    assert model.gate.temperature == 3.0
    for ours, theirs in zip(model.gate.parameters(), written.gate.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    output = model.score_conversation(MESSAGES)
    assert output.gates is not None
    assert abs(float(output.gates.sum()) - 1.5) < 1e-5


def test_transformers_reads_the_backbone_of_our_format(tmp_path: Path) -> None:
    from transformers import AutoModel

    native_checkpoint(tmp_path / "own")
    ours = AutoModel.from_pretrained(tmp_path / "own")
    theirs = AutoModel.from_pretrained(GOLDEN / "armorm")
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("as_path", ["relative", "absolute"])
def test_heads_may_refer_to_a_backbone_elsewhere(tmp_path: Path, as_path: str) -> None:
    # With its own output layer, which is not the checkpoint's and is left aside.
    backbone = Path(shutil.copytree(GOLDEN / "seqcls-llama-1", tmp_path / "backbone"))
    heads = tmp_path / "heads"
    heads.mkdir()
    source = "../backbone" if as_path == "relative" else str(backbone)
    reference = BackboneReference(source, weight_version(backbone))
    save_heads(heads, parts(), objectives=OBJECTIVES, backbone=reference)
    model = load_reward_model(heads, device="cpu")
    assert torch.isfinite(model.score_conversation(MESSAGES).rewards_NK).all()
    # Heads on other weights would give other numbers without a word.
    edit_tensors(backbone, lambda tensors: tensors["model.norm.weight"].mul_(1.01))
    with pytest.raises(CheckpointRefused, match="was trained|were trained"):
        load_reward_model(heads, device="cpu")


def test_dtypes_are_float32_heads_on_any_backbone(armorm_folder: Path) -> None:
    with safe_open(armorm_folder / "model.safetensors", "pt") as file:
        stored = file.get_tensor("regression_layer.weight")
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    for dtype in ("auto", "bfloat16", "float16"):
        model = load_reward_model(armorm_folder, device="cpu", dtype=dtype)
        expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        assert model.backbone.dtype == expected
        # Stored as float32, and never rounded through the backbone's dtype.
        assert torch.equal(model.heads.weight, stored)
        assert model.gate is not None
        assert model.gate.weights[0].dtype == torch.float32
        assert model.score_conversation(MESSAGES).rewards_NK.dtype == torch.float32


def test_bfloat16_backbone_scores_close_to_float32(armorm_folder: Path) -> None:
    exact = load_reward_model(armorm_folder, device="cpu").score_conversation(MESSAGES)
    half = load_reward_model(armorm_folder, device="cpu", dtype="bfloat16")
    rounded = half.score_conversation(MESSAGES)
    # Eight bits of mantissa through two layers; rewards here have a spread of about 1.
    torch.testing.assert_close(rounded.rewards_NK, exact.rewards_NK, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (None, ("objective_0",) * 0),
        ({str(i): f"LABEL_{i}" for i in range(10)}, tuple(f"objective_{i}" for i in range(10))),
        ({str(i): f"quality-{i}" for i in range(10)}, tuple(f"quality-{i}" for i in range(10))),
        ({str(i): "same" for i in range(10)}, tuple(f"objective_{i}" for i in range(10))),
    ],
    ids=["absent", "default", "named", "repeated"],
)
def test_names_come_from_labels_that_somebody_chose(
    tmp_path: Path, labels: dict[str, str] | None, names: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(GOLDEN / "seqcls-mistral-10", tmp_path / "model"))
    edit_config(folder, id2label=labels, label2id=None)
    expected = names or tuple(f"objective_{i}" for i in range(10))
    assert load_reward_model(folder, device="cpu").objectives.names == expected


@pytest.mark.parametrize(
    "place",
    ["ArmoRM-Llama3-8B-v0.1", "models--RLHFlow--ArmoRM-Llama3-8B-v0.1/snapshots/eb2676d"],
    ids=["folder-name", "hub-cache"],
)
def test_local_copies_of_known_checkpoints_get_their_names(tmp_path: Path, place: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / "armorm", tmp_path / place))
    objectives = load_reward_model(folder, device="cpu").objectives
    assert objectives.names[0] == "helpsteer-helpfulness"
    assert objectives.names[17] == "code-instruction-following"
    scales = {o.name: o.rating for o in objectives.objectives if o.rating}
    assert set(scales) == {
        *objectives.names[:5],
        "ultrafeedback-overall_score",
        "beavertails-is_safe",
    }
    # The documented inverses: 5r - 0.5 and 10r + 0.5.
    assert scales["helpsteer-helpfulness"].value(0.65625) == 2.78125
    assert scales["ultrafeedback-overall_score"].value(0.05) == 1.0


def test_unknown_source_is_not_found() -> None:
    with pytest.raises(NotFound, match="no folder 'nowhere'"):
        load_reward_model("nowhere")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match=r"no config\.json"):
        load_reward_model(tmp_path)


def test_format_of_the_future_is_refused(tmp_path: Path) -> None:
    native_checkpoint(tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    config = json.loads(path.read_text())
    config["steerward"]["format_version"] = 99
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointRefused, match="format 99"):
        load_reward_model(tmp_path / "own")


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (["not", "an", "object"], "'steerward' as an object"),
        ({"objectives": None}, "'objectives' as a list"),
        ({"objectives": {"name": "a"}}, "'objectives' as a list"),
        ({"objectives": ["a", "b"]}, r"steerward\.objectives"),
        ({"gate": "softmax"}, "'gate' as an object or null"),
        ({"backbone": "elsewhere"}, "'backbone' as an object or null"),
        ({"backbone": {"weight_version": "0"}}, "'source' as a string"),
        ({"backbone": {"source": "elsewhere"}}, "'weight_version' as a string"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_section_that_is_not_of_the_format_is_refused_by_key(
    tmp_path: Path, section: Any, reason: str
) -> None:
    native_checkpoint(tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    config = json.loads(path.read_text())
    if isinstance(section, dict):
        section = {**config["steerward"], **section}
    path.write_text(json.dumps({**config, "steerward": section}))
    with pytest.raises(CheckpointRefused, match=reason):
        load_reward_model(tmp_path / "own")


def test_gate_that_the_section_denies_is_refused_by_key(tmp_path: Path) -> None:
    native_checkpoint(tmp_path / "own")
    path = tmp_path / "own" / "config.json"
    config = json.loads(path.read_text())
    config["steerward"]["gate"] = None
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointRefused, match=r"'gate\.layers\.0\.bias' in heads\.safetensors"):
        load_reward_model(tmp_path / "own")


@pytest.mark.parametrize("key", ["heads.extra", "gate.layers.3.weight", "notes"])
def test_left_key_of_the_heads_file_is_refused_by_name(tmp_path: Path, key: str) -> None:
    native_checkpoint(tmp_path / "own")
    path = tmp_path / "own" / HEADS_FILE
    save_file({**load_file(path), key: torch.zeros(2, 64)}, path)
    with pytest.raises(CheckpointRefused, match=f"'{key}' in heads.safetensors is not known"):
        load_reward_model(tmp_path / "own")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": None}, "model_type"),
        ({"model_type": "abacus"}, "abacus"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 7}, "number of attention heads"),
        ({"hidden_act": "abrupt"}, "abrupt"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_config_that_no_backbone_fits_is_refused_with_the_reason(
    armorm_folder: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_config(armorm_folder, **changes)
    with pytest.raises(CheckpointRefused, match=f"(?s)did not load .*{reason}"):
        load_reward_model(armorm_folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_damaged_tokenizer_is_refused(armorm_folder: Path, name: str, text: str) -> None:
    (armorm_folder / name).write_text(text)
    with pytest.raises(CheckpointRefused, match="the tokenizer in .* did not load"):
        load_reward_model(armorm_folder, device="cpu")


def test_empty_label_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "seqcls-llama-1", tmp_path / "model"))
    edit_config(folder, id2label={"0": ""}, label2id=None)
    with pytest.raises(CheckpointRefused, match="id2label"):
        load_reward_model(folder, device="cpu")


def test_tokenizer_of_another_model_is_refused(armorm_folder: Path) -> None:
    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:1000].clone()

    edit_tensors(armorm_folder, shrink)
    edit_config(armorm_folder, vocab_size=1000, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    with pytest.raises(CheckpointRefused, match="do not belong together"):
        load_reward_model(armorm_folder, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:99", "mps", "meta"])
def test_device_that_is_not_there_is_refused(armorm_folder: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(CheckpointRefused, match=f"'{device}'.*use auto, cpu, cuda or cuda:0"):
        load_reward_model(armorm_folder, device=device)


def test_automatic_dtype_rounds_no_float16_weights() -> None:
    cuda = torch.device("cuda")
    assert resolve_dtype("auto", cuda, {"dtype": "float16"}) == torch.float16
    assert resolve_dtype("auto", cuda, {"torch_dtype": "float16"}) == torch.float16
    assert resolve_dtype("auto", cuda, {"dtype": "float32"}) == torch.bfloat16
    assert resolve_dtype("auto", cuda, {}) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("cpu"), {"dtype": "float16"}) == torch.float32
    assert resolve_dtype("bfloat16", cuda, {"dtype": "float16"}) == torch.bfloat16


def test_weight_version_follows_everything_a_score_depends_on(armorm_folder: Path) -> None:
    before = weight_version(armorm_folder)
    assert before == weight_version(GOLDEN / "armorm")
    (armorm_folder / "README.md").write_text("a model card changes no score")
    (armorm_folder / "expected.json").write_text("{}")
    assert weight_version(armorm_folder) == before
    seen = {before}
    edit_config(armorm_folder, gating_temperature=9)
    seen.add(weight_version(armorm_folder))
    edit_tensors(armorm_folder, lambda tensors: tensors["gating.logit_scale"].add_(1))
    seen.add(weight_version(armorm_folder))
    template = armorm_folder / TOKENIZER_FILES[2]
    template.write_text(template.read_text() + " ")
    seen.add(weight_version(armorm_folder))
    # Where there is no tokenizer.json, the tokenizer is made from some of these.
    others = (
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    )
    for name in others:
        (armorm_folder / name).write_text("{}")
        seen.add(weight_version(armorm_folder))
    assert len(seen) == 4 + len(others)
