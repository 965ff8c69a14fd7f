"""All kinds of instructions by their ids: the 25 published ones of IFEval and our own.

IFEval: Zhou et al., arXiv:2311.07911; its code is in google-research,
``instruction_following_eval``. Kinds beyond it are in the namespace ``steerward:``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from steerward.instructions import case, content, edge, format, keyword, length, size
from steerward.instructions.kind import Kind
from steerward.protocol.errors import InvalidRequest, brief

_FAMILIES = (length, keyword, case, format, content, edge, size)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.id: kind for family in _FAMILIES for kind in family.KINDS}
)
"""Every kind, by its id."""


def kind_named(name: str) -> Kind:
    """Return a kind by its id.

    Raises:
        InvalidRequest: If there is none; the known ones are named.
    """
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidRequest(
            f"there is no kind of instruction {brief(str(name))}; known: {', '.join(sorted(KINDS))}"
        )
    return kind
