"""Columns of a row beside its prompt: what judges and tasks read, and no typos."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from steerward.protocol.errors import InvalidRequest, brief

COLUMNS = "columns"
"""Object of a row with columns of any other name."""
JUDGED = frozenset(
    {
        *("answer", "keywords", "instructions", "instruction_id_list", "kwargs", "key"),
        *("json_schema", "task", "baseline", COLUMNS),
    }
)
"""Keys that rows may have for judges and tasks."""
# What trainers pass to reward functions by these names is something else.
_TAKEN = frozenset(
    {
        *("prompt", "prompts", "messages", "completion", "completions", "completion_ids"),
        *("chosen", "rejected", "margin_chosen", "margin_rejected", "image", "images", "tools"),
        *("environments", "trainer_state", "log_extra", "log_metric", "id", "metadata"),
        *("chat_template_kwargs", "input_ids", "labels", COLUMNS),
    }
)


def columns_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row, those that stand beside its prompt and those in `columns`.

    Raises:
        InvalidRequest: If `columns` is no object, a name is taken, or a value is no Unicode text.
    """
    found = {key: fields[key] for key in sorted(JUDGED - {COLUMNS}) if key in fields}
    more = fields.get(COLUMNS, {})
    if not isinstance(more, dict):
        raise InvalidRequest(f"{COLUMNS}: not an object of names and values")
    for name, value in cast("dict[str, Any]", more).items():
        shown = brief(ascii(name)[1:-1])
        if not name.isidentifier() or name in _TAKEN:
            raise InvalidRequest(
                f"{COLUMNS}.{shown}: not a name that a column can have; take another"
            )
        if name in found:
            raise InvalidRequest(f"{COLUMNS}.{shown}: also beside the prompt; give it once")
        found[name] = value
    for name, value in found.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (UnicodeEncodeError, ValueError, RecursionError):
            raise InvalidRequest(f"{name}: holds no Unicode text, or no finite number") from None
    return found
