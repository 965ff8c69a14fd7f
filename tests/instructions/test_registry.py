"""The registry has every published kind, and names what it has."""

from __future__ import annotations

import pytest

from steerward.instructions import KINDS, Instruction
from steerward.instructions.registry import kind_named
from steerward.protocol.errors import InvalidRequest
from tests.instructions.cases import PUBLISHED


def test_all_published_kinds_are_there_and_ours_have_their_own_namespace() -> None:
    assert len(PUBLISHED) == 25
    assert set(KINDS) >= PUBLISHED
    assert all(kind.startswith("steerward:") for kind in set(KINDS) - PUBLISHED)
    assert len(KINDS) >= 35


def test_ids_are_those_of_the_kinds() -> None:
    assert all(name == kind.id for name, kind in KINDS.items())


def test_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"no kind .* keywords:rhyme; known: .*keywords:exist"):
        kind_named("keywords:rhyme")
    with pytest.raises(InvalidRequest, match="known: "):
        Instruction("no_comma", {})
