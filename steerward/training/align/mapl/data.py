"""From original pairs to the rows that MAPL learns from; the same seed gives the same rows.

Of every pair both ends are used, or none: with the preferred response alone a model could learn
once more that it is good, whatever the prompt asks. Every row is checked again when it is built.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from steerward.instructions import KINDS
from steerward.protocol.errors import DatasetRefused, InvalidRequest, SteerwardError, brief
from steerward.protocol.mapl import MaplSettings
from steerward.training.align.mapl.inter import build_inter
from steerward.training.align.mapl.intra import build_intra
from steerward.training.align.mapl.rows import InterRow, IntraRow, is_true, write_rows
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.rows import PairRow
from steerward.training.files import write_json

SIZES = (2, 4)
"""Instructions in a prompt, least and most; the paper's are not published, these are ours."""
MIN_SHARE = 0.1
"""Share of the pairs that must give rows of each part; ours."""

ROWS_FOLDER = "rows"
"""Of built rows, in the folder of a run."""
BUILT = ("intra", "inter")
"""Parts whose rows are built of pairs."""
UNDRAWN = frozenset({"combination:repeat_prompt"})
"""Kinds of which no instruction is ever drawn: a response alone does not say whether it meets it.
"""

RowT = TypeVar("RowT", IntraRow, InterRow)


class TooFewRows(DatasetRefused):
    """Instructions that part the responses were found for too few pairs."""

    code = "too_few_rows"


@dataclass(frozen=True, slots=True)
class BuiltRows:
    """Rows of both parts, and what became of the pairs that gave none."""

    intra: list[IntraRow]
    """Two by two: one of the preferred response, one of the other."""
    inter: list[InterRow]
    """Two by two: one of each direction."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Pairs, by why they gave no rows."""


def split_kinds(
    held_out: Collection[str] = (),
    *,
    share: float = 0.0,
    seed: int = 0,
    never: Collection[str] = (),
) -> tuple[list[str], list[str]]:
    """Return the kinds of instructions to train on, and those held out.

    Args:
        held_out: Kinds to hold out.
        share: Where none is named, the share of all kinds that is drawn.
        seed: Of that draw.
        never: Kinds that are not among those which are drawn, such as `UNDRAWN`.

    Raises:
        InvalidRequest: If a kind is not known, or none is left to train on.
    """
    names = sorted(KINDS)
    _check_known(held_out)
    pool = [name for name in names if name not in never]
    num = min(round(share * len(names)), len(pool))
    out = set(held_out) or set(random.Random(seed).sample(pool, num))
    if len(out) == len(names):
        raise InvalidRequest(
            f"all {len(names)} kinds of instructions are held out; leave some to train on"
        )
    return [name for name in names if name not in out], sorted(out)


def build_rows(
    pairs: Sequence[PairRow],
    *,
    kinds: Collection[str] | None = None,
    sizes: tuple[int, int] = SIZES,
    seed: int = 0,
    min_share: float = MIN_SHARE,
    parts: Collection[str] = BUILT,
    title: str = "rows",
) -> BuiltRows:
    """Return intra and inter rows of original pairs.

    The rows of a pair depend on the seed, its place and itself, and not on the other pairs.

    Args:
        pairs: Original pairs.
        kinds: Of instructions to draw from; default: all. Those held out are left out here.
        sizes: Least and most instructions in a prompt.
        seed: Of all draws.
        min_share: Share of the pairs below which a part is refused.
        parts: To build, of `BUILT`; the rows of one are the same with and without the other.
        title: Of the progress bar, which is drawn on a terminal only.

    Raises:
        InvalidRequest: If a kind is not known, or the sizes cannot be.
        TooFewRows: If fewer pairs than that gave rows; counts are named.
        SteerwardError: If the checkers do not confirm a row.
    """
    names = sorted(KINDS if kinds is None else set(kinds))
    _check_known(names)
    _check_sizes(sizes, len(names))
    builder = _Builder(names, sizes=sizes, seed=seed, parts=parts)
    unique = _unique(pairs) if parts else []
    for place, pair in enumerate(tqdm(unique, desc=title, unit="pair", disable=None)):
        builder.add(pair, place)
    for part, rows in zip(BUILT, (builder.intra, builder.inter), strict=True):
        if part not in parts:
            continue
        if not rows or len(rows) < 2 * min_share * len(unique):
            raise TooFewRows(
                f"{len(rows) // 2} of {len(unique)} pairs gave {part} rows with {sizes[0]} to "
                f"{sizes[1]} instructions of {len(names)} kinds, and {min_share:.0%} must; give "
                "pairs whose responses differ more, more kinds, or fewer instructions a prompt"
            )
    left_out = Counter(builder.left_out)
    left_out["the same pair twice"] = len(pairs) - len(unique) if parts else 0
    return BuiltRows(builder.intra, builder.inter, +left_out)


class _Builder:
    def __init__(
        self, kinds: Sequence[str], *, sizes: tuple[int, int], seed: int, parts: Collection[str]
    ) -> None:
        self._kinds = kinds
        self._sizes = sizes
        self._seed = seed
        self._parts = parts
        self._known: set[Hashable] = set()
        self.intra: list[IntraRow] = []
        self.inter: list[InterRow] = []
        self.left_out: Counter[str] = Counter()

    def add(self, pair: PairRow, place: int) -> None:
        order = random.Random(f"{self._seed}/{place}")
        # Drawn in any case: inter rows depend on where it leaves the order.
        intra = self._intra(pair, order)
        if "intra" in self._parts:
            self._keep(intra, self.intra, part="intra")
        if "inter" in self._parts:
            self._keep(self._inter(pair, order), self.inter, part="inter")

    def _intra(self, pair: PairRow, order: random.Random) -> list[IntraRow | None]:
        return [
            build_intra(pair.messages, response, kinds=self._kinds, sizes=self._sizes, order=order)
            for response in (pair.chosen, pair.rejected)
        ]

    def _inter(self, pair: PairRow, order: random.Random) -> list[InterRow | None]:
        directions: tuple[Literal[1, -1], ...] = (1, -1)
        return [
            build_inter(
                pair, direction=direction, kinds=self._kinds, sizes=self._sizes, order=order
            )
            for direction in directions
        ]

    def _keep(self, built: Sequence[RowT | None], kept: list[RowT], *, part: str) -> None:
        rows = [row for row in built if row is not None]
        if len(rows) < len(built):
            self.left_out[f"too few instructions for both {part} rows"] += 1
            return
        keys = {_key(row) for row in rows}
        if len(keys) < len(rows) or keys & self._known:
            self.left_out[f"{part} rows are there already"] += 1
            return
        for row in rows:
            if not is_true(row):
                raise SteerwardError(
                    f"the checkers do not confirm an {part} row that was built of kinds "
                    f"{', '.join(_kinds(row))}; one of these kinds draws what it does not check"
                )
        self._known |= keys
        kept += rows


def parts_of(settings: MaplConfig | MaplSettings) -> tuple[str, ...]:
    """Return the parts that count, of those whose rows are built."""
    weights = (settings.lambda_intra, settings.lambda_inter)
    return tuple(part for part, weight in zip(BUILT, weights, strict=True) if weight)


def build_as_set(
    pairs: Sequence[PairRow],
    settings: MaplConfig | MaplSettings,
    *,
    kinds: Sequence[str],
    parts: Collection[str] = BUILT,
    title: str = "rows",
) -> BuiltRows:
    """Return the rows that settings ask for; see `build_rows`."""
    return build_rows(
        pairs,
        kinds=kinds,
        sizes=(settings.min_instructions, settings.max_instructions),
        seed=settings.seed,
        min_share=settings.min_rows_share,
        parts=parts,
        title=title,
    )


def in_twos(rows: Sequence[RowT]) -> list[tuple[RowT, RowT]]:
    """Return built rows as those that stand or fall together: one of each end of a pair."""
    return list(zip(rows[::2], rows[1::2], strict=True))


def write_built(folder: Path, built: BuiltRows, *, name: str) -> None:
    """Write rows into the folder of a run, and which pairs gave none.

    Args:
        folder: Of the run.
        built: The rows.
        name: What they are for, the first part of the files' names.
    """
    rows = folder / ROWS_FOLDER
    write_rows(rows / f"{name}-intra.jsonl", built.intra)
    write_rows(rows / f"{name}-inter.jsonl", built.inter)
    write_json(rows / f"{name}.json", {"pairs_left_out": dict(built.left_out)})


def _kinds(row: IntraRow | InterRow) -> list[str]:
    found = row.instructions_chosen if isinstance(row, IntraRow) else row.instructions
    return [one.kind for one in found]


def _key(row: IntraRow | InterRow) -> Hashable:
    if isinstance(row, IntraRow):
        return _text(row.prompt_chosen), _text(row.prompt_rejected), row.response
    return _text(row.prompt_with), row.chosen, row.rejected


def _unique(pairs: Sequence[PairRow]) -> list[PairRow]:
    return list({(_text(one.messages), one.chosen, one.rejected): one for one in pairs}.values())


def _text(turns: Sequence[Mapping[str, str]]) -> Hashable:
    return tuple((turn["role"], turn["content"]) for turn in turns)


def _check_known(kinds: Collection[str]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidRequest(
                f"there is no kind of instruction {brief(kind)!r}; known are {', '.join(KINDS)}"
            )


def _check_sizes(sizes: tuple[int, int], num_kinds: int) -> None:
    least, most = sizes
    if not 1 <= least <= most:
        raise InvalidRequest(
            f"{least} to {most} instructions a prompt cannot be; give at least 1, least first"
        )
    if least > num_kinds:
        raise InvalidRequest(
            f"{least} instructions of different kinds were asked for, and there are {num_kinds} "
            "kinds; ask for fewer or hold out fewer kinds"
        )
