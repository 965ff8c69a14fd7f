"""The steps one after another on files, as a user runs them, and what each refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

from steerward.cli.main import main
from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import group_conversations
from steerward.protocol.errors import CheckpointRefused, DatasetRefused
from steerward.training import embeddings as embeddings_module
from steerward.training.config import EmbedConfig, GatingConfig, PackageConfig
from steerward.training.data.rows import PreferencePair, RatedResponse, Row, load_rows
from steerward.training.embeddings import read_embeddings, run_embed
from steerward.training.gating import run_gating
from steerward.training.package import run_package


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: Path,
    rating_file: Path,
    pair_file: Path,
    objectives_file: Path,
) -> dict[str, Path]:
    """Embed, fit heads, train the gate, package, evaluate: by the command line."""
    out = tmp_path_factory.mktemp("run")
    paths = {name: out / name for name in ("vectors", "heads", "gate", "model", "report")}

    def command(*arguments: object) -> None:
        assert main(["train", *map(str, arguments)]) == 0

    data = ("--data", rating_file, "--data", pair_file)
    command("embed", "--backbone", tiny_backbone, *data, "--out", paths["vectors"],
            "--shard-rows", 100, "--device", "cpu")  # fmt: skip
    command("heads", "--data", rating_file, "--pairs", pair_file, "--embeddings", paths["vectors"],
            "--objectives", objectives_file, "--out", paths["heads"])  # fmt: skip
    command("gating", "--data", pair_file, "--reference", rating_file,
            "--embeddings", paths["vectors"], "--heads", paths["heads"], "--out", paths["gate"],
            "--steps", 200, "--batch-size", 128)  # fmt: skip
    command("package", "--backbone", tiny_backbone, "--heads", paths["heads"],
            "--gate", paths["gate"], "--out", paths["model"])  # fmt: skip
    command("evaluate", "--reward-model", paths["model"], *data, "--objectives", objectives_file,
            "--out", paths["report"], "--bootstrap", 200, "--device", "cpu")  # fmt: skip
    return paths


def test_packaged_model_has_learned_what_the_data_say(run: dict[str, Path]) -> None:
    report = json.loads((run["report"] / "report.json").read_text())
    assert report["objectives"]["helpfulness"]["spearman"] > 0.5
    assert report["objectives"]["verbosity"]["spearman"] > 0.7
    pairs = report["pairs"]
    assert pairs["score"]["value"] > 0.85
    assert pairs["longer wins"]["value"] < 0.65
    expected = {"score", "longer wins", "mean of standardised rewards", "uniform gates",
                "16 surface features", "one global weighting"}  # fmt: skip
    assert expected < set(pairs)
    assert sum(name.startswith("best single objective") for name in pairs) == 1
    for entry in pairs.values():
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["pairs"] == 80
    assert pairs["longer wins"]["spearman_with_length"] > 0.95
    assert abs(pairs["score"]["spearman_with_length"]) < 0.5
    assert abs(report["length"]["spearman_with_transform"]) < 0.3
    assert (run["report"] / "report.png").stat().st_size > 10_000


def test_figures_of_the_report_are_what_the_scores_say(
    run: dict[str, Path], rating_file: Path, pair_file: Path
) -> None:
    """Recomputed from single scores of the packaged model, with another library."""
    report = json.loads((run["report"] / "report.json").read_text())
    model = load_reward_model(run["model"], device="cpu")

    def outputs(row: Row, *answers: str) -> tuple[Any, Any, Any]:
        output = model.score(group_conversations(model.encode(row.context, answers)))
        assert output.scores_N is not None
        assert output.gates is not None
        parts = (output.rewards_NK, output.scores_N, output.gates[0])
        return tuple(part.double().numpy() for part in parts)

    rated = load_rows([rating_file], RatedResponse, split="test")
    rewards = np.array([outputs(row, row.response)[0][0] for row in rated])
    labels = np.array([(row.ratings["quality"] - 1) / 4 for row in rated])
    scale = model.objectives.objectives[0].rating
    assert scale is not None
    entry, predicted = report["objectives"]["helpfulness"], rewards[:, 0] + scale.offset
    assert entry["spearman"] == pytest.approx(stats.spearmanr(rewards[:, 0], labels)[0], abs=1e-3)
    assert entry["pearson"] == pytest.approx(stats.pearsonr(rewards[:, 0], labels)[0], abs=1e-5)
    assert entry["mse"] == pytest.approx(((predicted - labels) ** 2).mean(), abs=1e-5)

    pairs = load_rows([pair_file], PreferencePair, split="test")
    scored = [outputs(pair, pair.chosen, pair.rejected) for pair in pairs]
    differences = np.array([rewards[0] - rewards[1] for rewards, _, _ in scored])
    transform = model.transform.double().numpy()
    gates = np.array([gate for _, _, gate in scored])
    found = report["pairs"]
    margins = {
        "score": np.array([scores[0] - scores[1] for _, scores, _ in scored]),
        "uniform gates": (differences @ transform).mean(axis=-1),
        "longer wins": np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs]),
    }
    for name, margin in margins.items():
        # Ties count as half.
        right = (margin > 0).mean() + (margin == 0).mean() / 2
        assert found[name]["value"] == pytest.approx(right, abs=1e-9), name
    without = (differences * np.diag(transform) * gates).sum(axis=-1)
    length = report["length"]
    assert length["accuracy_without_transform"] == pytest.approx((without > 0).mean())
    lengths = [math.log((1 + len(p.chosen)) / (1 + len(p.rejected))) for p in pairs]
    assert length["pair_margin_spearman_with_transform"] == pytest.approx(
        stats.spearmanr(margins["score"], lengths)[0], abs=1e-3
    )
    assert length["pair_margin_spearman_without_transform"] == pytest.approx(
        stats.spearmanr(without, lengths)[0], abs=1e-3
    )


def test_held_out_pairs_are_judged_by_heads_that_have_not_seen_them(
    run: dict[str, Path], pair_file: Path, tmp_path: Path
) -> None:
    """With selection heads that say nothing, no held-out pair can be told apart."""
    heads = Path(shutil.copytree(run["heads"], tmp_path / "heads"))
    tensors = load_file(heads / "heads.safetensors")
    tensors["selection.weight"] = torch.zeros_like(tensors["selection.weight"])
    save_file(tensors, heads / "heads.safetensors")
    accuracies = {
        folder: run_gating(
            GatingConfig(
                data=[pair_file],
                embeddings=run["vectors"],
                heads=folder,
                out=tmp_path / folder.name / "gate",
                steps=40,
            )
        )
        for folder in (run["heads"], heads)
    }
    assert accuracies[run["heads"]][0] > 0.7
    assert accuracies[heads] == (0.0, 0.0)


def test_packaged_model_serves_the_scores_of_training(
    run: dict[str, Path], pair_file: Path
) -> None:
    model = load_reward_model(run["model"], device="cpu")
    probes = json.loads((run["gate"] / "gate.json").read_text())["probes"]
    rows = load_rows([pair_file], PreferencePair)
    assert len(probes) >= 32
    for probe in probes:
        row = rows[probe["row"]]
        assert row.split == "train"
        conversations = model.encode(row.context, [row.chosen, row.rejected])
        served = model.score(group_conversations(conversations)).scores_N
        assert served is not None
        assert served.tolist() == pytest.approx(probe["scores"], abs=1e-4)


def test_checkpoint_knows_its_objectives_and_reference(run: dict[str, Path]) -> None:
    model = load_reward_model(run["model"], device="cpu")
    assert model.objectives.names == ("helpfulness", "tone", "verbosity")
    assert model.objectives.has_reference
    helpfulness = model.objectives.objectives[0]
    assert helpfulness.description == (
        "0..1, from first/quality (1..5), second/quality (1..5), pairs of category quality"
    )
    # Verbosity itself counts for nothing after the transform.
    assert not model.transform[:, 2].any()


def test_gate_of_other_heads_is_refused(
    run: dict[str, Path], tmp_path: Path, tiny_backbone: Path
) -> None:
    heads = Path(shutil.copytree(run["heads"], tmp_path / "heads"))
    report = json.loads((heads / "heads.json").read_text())
    report["weight_version"] = "0" * 12
    (heads / "heads.json").write_text(json.dumps(report))
    config = PackageConfig(
        backbone=str(tiny_backbone), heads=heads, gate=run["gate"], out=tmp_path / "model"
    )
    with pytest.raises(CheckpointRefused, match="heads were trained on backbone 000000000000"):
        run_package(config)
    assert not (tmp_path / "model").exists()


def test_package_that_scores_otherwise_is_not_written(
    run: dict[str, Path], tmp_path: Path, tiny_backbone: Path
) -> None:
    gate = Path(shutil.copytree(run["gate"], tmp_path / "gate"))
    report = json.loads((gate / "gate.json").read_text())
    report["probes"][5]["scores"][1] += 0.01
    (gate / "gate.json").write_text(json.dumps(report))
    config = PackageConfig(
        backbone=str(tiny_backbone), heads=run["heads"], gate=gate, out=tmp_path / "model"
    )
    with pytest.raises(CheckpointRefused, match="training had"):
        run_package(config)
    assert not (tmp_path / "model").exists()


def test_package_may_refer_to_its_backbone(
    run: dict[str, Path], tmp_path: Path, tiny_backbone: Path
) -> None:
    folder = run_package(
        PackageConfig(
            backbone=str(tiny_backbone),
            heads=run["heads"],
            gate=run["gate"],
            out=tmp_path / "referring",
            refer=True,
        )
    )
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "heads.safetensors"]
    copied, referring = (load_reward_model(f, device="cpu") for f in (run["model"], folder))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for ours, theirs in zip(
        copied.score_conversation(turns).rewards_NK,
        referring.score_conversation(turns).rewards_NK,
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


class TestEmbed:
    @staticmethod
    def config(tiny_backbone: Path, data: Path, out: Path, **options: Any) -> EmbedConfig:
        settings = {"shard_rows": 100, "device": "cpu", **options}
        return EmbedConfig(backbone=str(tiny_backbone), data=[data], out=out, **settings)

    def test_shards_have_their_own_files_and_all_rows(
        self, run: dict[str, Path], rating_file: Path, pair_file: Path
    ) -> None:
        """The public script computes a file name a shard and then ignores it."""
        ratings = read_embeddings(run["vectors"], rating_file)
        pairs = read_embeddings(run["vectors"], pair_file)
        assert ratings.rows == [i for i in range(600) if i % 5]
        assert ratings.last_NSH.shape == (480, 1, 48)
        assert pairs.last_NSH.shape == (320, 2, 48)
        assert pairs.gating_NH.shape == (320, 48)
        assert len(list((run["vectors"] / "ratings-rated").glob("shard-*.safetensors"))) == 5
        assert len(torch.unique(ratings.last_NSH[:, 0], dim=0)) > 470

    def test_most_rows_are_spread_over_the_file(
        self, tiny_backbone: Path, pair_file: Path, tmp_path: Path
    ) -> None:
        run_embed(self.config(tiny_backbone, pair_file, tmp_path, split="test", max_rows=8))
        rows = read_embeddings(tmp_path, pair_file).rows
        assert rows == [0, 50, 100, 150, 200, 250, 300, 350]

    def test_killed_run_goes_on_with_the_missing_shards(
        self, tiny_backbone: Path, pair_file: Path, tmp_path: Path, run: dict[str, Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        config = self.config(tiny_backbone, pair_file, tmp_path)
        whole = run_embed(config)
        assert whole == {}
        first, second = (
            tmp_path / "pairs-pairs" / "shard-00000.safetensors",
            (tmp_path / "pairs-pairs" / "shard-00001.safetensors"),
        )
        kept = first.stat().st_mtime_ns
        second.unlink()
        # A kill in the middle of a write leaves only the temporary file.
        second.with_name(second.name + ".tmp").write_bytes(b"half")
        with pytest.raises(DatasetRefused, match="run embed again"):
            read_embeddings(tmp_path, pair_file)
        calls: list[int] = []
        original = embeddings_module._embed_rows
        monkeypatch.setattr(
            embeddings_module,
            "_embed_rows",
            lambda rows, *rest: calls.append(len(rows)) or original(rows, *rest),
        )
        run_embed(config)
        assert calls == [100]
        assert first.stat().st_mtime_ns == kept
        torch.testing.assert_close(
            read_embeddings(tmp_path, pair_file).last_NSH,
            read_embeddings(run["vectors"], pair_file).last_NSH,
            atol=1e-5,
            rtol=1e-4,
        )

    def test_vectors_of_another_backbone_or_file_are_refused(
        self, tiny_backbone: Path, pair_file: Path, tmp_path: Path
    ) -> None:
        data = Path(shutil.copy(pair_file, tmp_path / "pairs.jsonl"))
        out = tmp_path / "vectors"
        run_embed(self.config(tiny_backbone, data, out))
        with data.open("a") as file:
            file.write(json.dumps(json.loads(data.read_text().splitlines()[1])) + "\n")
        with pytest.raises(DatasetRefused, match="changed since it was embedded"):
            read_embeddings(out, data)
        with pytest.raises(DatasetRefused, match="another sha256"):
            run_embed(self.config(tiny_backbone, data, out))
        run_embed(self.config(tiny_backbone, data, out, overwrite=True))
        assert len(read_embeddings(out, data).rows) == 321

    def test_over_long_rows_are_left_out_and_counted(
        self, tiny_backbone: Path, pair_file: Path, tmp_path: Path
    ) -> None:
        rows = [json.loads(line) for line in pair_file.read_text().splitlines()[:5]]
        rows[3]["chosen"] = "river " * 400
        data = tmp_path / "long.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert run_embed(self.config(tiny_backbone, data, tmp_path)) == {"long.jsonl": 1}
        assert read_embeddings(tmp_path, data).rows == [1, 2, 4]
