"""Vectors of the frozen backbone, computed once and kept in shards.

What stage 1 and 2 of ArmoRM (arXiv:2406.12845) read: the hidden state of the last token of each
response, and of the token that closes the last user turn. Positions, template and packed
batches are those of serving. Shards have their own files and are written in one step, so a run
that was killed loses at most the shard it was at.

Axis legend: N rows, S responses of a row (1 rated, 2 of a pair), H hidden.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder
from steerward.models.checkpoint import load_backbone
from steerward.models.packing import Group, group_conversations
from steerward.models.plan import pack
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.errors import DatasetRefused
from steerward.training.config import EmbedConfig
from steerward.training.data.rows import (
    PreferencePair,
    RatedResponse,
    Row,
    RowT,
    is_pair_file,
    load_rows,
)
from steerward.training.files import file_digest, write_json, write_tensors

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of a data file."""

    rows: list[int]
    """Numbers of the rows that have vectors; rows over the length limit have none."""
    last_NSH: Tensor
    """Last-token vectors: one a rated response; chosen, then rejected, of a pair."""
    gating_NH: Tensor
    """Gating-position vectors; both responses of a pair share one."""
    weight_version: str
    """Of the backbone that gave them."""


def run_embed(config: EmbedConfig) -> dict[str, int]:
    """Compute the vectors of all files of a configuration.

    Returns:
        For each file with rows over the length limit, how many were left out.

    Raises:
        SteerwardError: If the backbone or a file cannot be read, or the output folder holds
            vectors of another backbone or other data.
    """
    version = weight_version(resolve_source(config.backbone))
    backbone, chat = load_backbone(config.backbone, device=config.device, dtype=config.dtype)
    skipped: dict[str, int] = {}
    for path in config.data:
        num_rows = _embed_file(path, config, backbone, chat, version)
        if missing := num_rows - len(read_embeddings(config.out, path).rows):
            skipped[path.name] = missing
    return skipped


def read_embeddings(folder: Path, path: Path) -> Embeddings:
    """Return the vectors of a data file.

    Raises:
        DatasetRefused: If they are absent or incomplete, or the file has changed since.
    """
    place = _place(folder, path)
    manifest = _read_manifest(place)
    if manifest is None:
        raise DatasetRefused(f"{path.name} has no vectors in {folder}; run `steerward train embed`")
    if manifest["sha256"] != file_digest(path):
        raise DatasetRefused(f"{path.name} has changed since it was embedded; embed it again")
    shards = [_shard_path(place, i) for i in range(manifest["shards"])]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise DatasetRefused(
            f"{place} lacks {missing[0]} and {len(missing) - 1} more; run embed again to finish it"
        )
    parts = [load_file(shard) for shard in shards]
    return Embeddings(
        rows=torch.cat([part["rows"] for part in parts]).tolist(),
        last_NSH=torch.cat([part["last"] for part in parts]),
        gating_NH=torch.cat([part["gating"] for part in parts]),
        weight_version=manifest["weight_version"],
    )


@dataclass(frozen=True, slots=True)
class EmbeddedRows(Generic[RowT]):
    """The training rows of a file that have vectors, with them."""

    rows: list[RowT]
    numbers: list[int]
    """Number of each row in the file."""
    last_NSH: Tensor
    gating_NH: Tensor
    weight_version: str


def load_embedded(
    path: Path, schema: type[RowT], folder: Path, *, weight_version: str | None = None
) -> EmbeddedRows[RowT]:
    """Return the training rows of a file with their vectors.

    Raises:
        DatasetRefused: If the vectors are absent, or of another backbone than asked for.
    """
    rows = load_rows([path], schema)
    embeddings = read_embeddings(folder, path)
    if weight_version not in (None, embeddings.weight_version):
        raise DatasetRefused(
            f"{path.name} was embedded with backbone {embeddings.weight_version}, other parts "
            f"were trained on {weight_version}; embed it again"
        )
    kept = [i for i, n in enumerate(embeddings.rows) if rows[n].split == "train"]
    numbers = [embeddings.rows[i] for i in kept]
    return EmbeddedRows(
        [rows[n] for n in numbers],
        numbers,
        embeddings.last_NSH[kept],
        embeddings.gating_NH[kept],
        embeddings.weight_version,
    )


def answers_of(row: Row) -> list[str]:
    """Return the responses of a row: one that was rated, or chosen and rejected."""
    if isinstance(row, PreferencePair):
        return [row.chosen, row.rejected]
    assert isinstance(row, RatedResponse)
    return [row.response]


def batches_of(groups: Sequence[Group], *, max_tokens: int) -> Iterator[list[int]]:
    """Yield indices of groups in batches of at most `max_tokens`, longest groups first."""
    batch: list[int] = []
    num_tokens = 0
    for i in sorted(range(len(groups)), key=lambda i: -groups[i].num_tokens):
        if batch and num_tokens + groups[i].num_tokens > max_tokens:
            yield batch
            batch, num_tokens = [], 0
        batch.append(i)
        num_tokens += groups[i].num_tokens
    if batch:
        yield batch


def _embed_file(
    path: Path, config: EmbedConfig, backbone: Backbone, chat: ChatEncoder, version: str
) -> int:
    """Compute the vectors of a file and return how many rows of it were chosen."""
    chosen = _chosen_rows(path, config)
    place = _place(config.out, path)
    manifest = {
        "file": path.name,
        "sha256": file_digest(path),
        "weight_version": version,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "split": config.split,
        "max_rows": config.max_rows,
        "shard_rows": config.shard_rows,
        "shards": -(-len(chosen) // config.shard_rows),
    }
    _prepare_place(place, manifest, overwrite=config.overwrite)
    with tqdm(total=len(chosen), desc=place.name, unit="row") as bar:
        for i in range(manifest["shards"]):
            of_shard = chosen[i * config.shard_rows : (i + 1) * config.shard_rows]
            if not _shard_path(place, i).is_file():
                tensors = _embed_rows([row for _, row in of_shard], backbone, chat, config, bar)
                numbers = torch.tensor([number for number, _ in of_shard])
                tensors["rows"] = numbers[tensors["rows"]]
                write_tensors(_shard_path(place, i), tensors)
            bar.n = i * config.shard_rows + len(of_shard)
            bar.refresh()
    return len(chosen)


def _chosen_rows(path: Path, config: EmbedConfig) -> list[tuple[int, Row]]:
    """Return the rows to embed, with their numbers in the file."""
    schema = PreferencePair if is_pair_file(path) else RatedResponse
    rows: list[Row] = [*load_rows([path], schema)]
    chosen = [(n, row) for n, row in enumerate(rows) if row.split == config.split]
    if config.max_rows is not None and len(chosen) > config.max_rows:
        # Evenly over the file, whose rows often lie in an order.
        step = len(chosen) / config.max_rows
        chosen = [chosen[int(i * step)] for i in range(config.max_rows)]
    return chosen


@torch.inference_mode()
def _embed_rows(
    rows: Sequence[Row], backbone: Backbone, chat: ChatEncoder, config: EmbedConfig, bar: Any
) -> dict[str, Tensor]:
    """Return the tensors of a shard; over-long rows are left out, never cut."""
    num_answers = len(answers_of(rows[0]))
    kept: list[int] = []
    groups: list[list[Group]] = []
    for n, row in enumerate(rows):
        conversations = chat.encode(row.context, answers_of(row))
        if max(len(conversation.ids) for conversation in conversations) <= backbone.max_positions:
            kept.append(n)
            groups.append(group_conversations(conversations))
    last_NSH = torch.zeros(len(kept), num_answers, backbone.hidden_size)
    gating_NH = torch.zeros(len(kept), backbone.hidden_size)
    flat = [place for n, of_row in enumerate(groups) for place in _places(n, of_row)]
    for batch in batches_of([place.group for place in flat], max_tokens=config.max_batch_tokens):
        packed = pack([flat[i].group for i in batch]).to(backbone.device)
        hidden_RH = backbone(packed).float().cpu()
        last_rows = packed.last_rows_N.tolist()
        gating_rows = packed.gating_rows_P[packed.prompt_index_N].tolist()
        n = 0
        for i in batch:
            place = flat[i]
            gating_NH[place.row] = hidden_RH[gating_rows[n]]
            for s in range(len(place.group.suffixes)):
                last_NSH[place.row, place.first_answer + s] = hidden_RH[last_rows[n]]
                n += 1
        bar.update(len(batch))
    return {"rows": torch.tensor(kept, dtype=torch.int64), "last": last_NSH, "gating": gating_NH}


@dataclass(frozen=True, slots=True)
class _GroupPlace:
    """A group, and where its vectors go."""

    row: int
    first_answer: int
    group: Group


def _places(row: int, groups: Sequence[Group]) -> Iterator[_GroupPlace]:
    first = 0
    for group in groups:
        yield _GroupPlace(row, first, group)
        first += len(group.suffixes)


def _prepare_place(place: Path, manifest: dict[str, Any], *, overwrite: bool) -> None:
    if overwrite and place.is_dir():
        shutil.rmtree(place)
    found = _read_manifest(place)
    if found is not None and found != manifest:
        different = sorted(key for key in manifest if found.get(key) != manifest[key])
        raise DatasetRefused(
            f"{place} holds vectors with another {', '.join(different)}; choose another --out, "
            "or replace them with --overwrite"
        )
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / _MANIFEST, manifest)


def _read_manifest(place: Path) -> dict[str, Any] | None:
    path = place / _MANIFEST
    return json.loads(path.read_text()) if path.is_file() else None


def _place(folder: Path, path: Path) -> Path:
    """Return the folder of a file's vectors; files of one name and different kinds stay apart."""
    kind = "pairs" if is_pair_file(path) else "ratings"
    return folder / f"{kind}-{path.name.partition('.')[0]}"


def _shard_path(place: Path, index: int) -> Path:
    return place / f"shard-{index:05d}.safetensors"
