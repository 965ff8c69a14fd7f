"""A judge of JSON against a schema."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.judges.program import fenced_blocks
from steerward.protocol.errors import InvalidRequest

_MOST_SCHEMA_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema(SampleJudge):
    """Passes a completion that is JSON which a schema allows.

    The JSON is the whole completion, or its only fenced block. NaN, infinities and keys that
    stand twice are no JSON here. References of a schema to other documents are never fetched.

    Args:
        schema: For all rows, as JSON text of at most 64 KiB, as those of rows; None: only those
            of rows. The limit is ours.
        column: Holds a row's own schema. JSON text is the safe form: libraries of datasets give
            every mapping of a column the keys of all others.
        name: Of the judge.

    Raises:
        InvalidRequest: If there is no schema, or it is none, too long or nested too deep.
        ImportError: If the package that reads schemas is missing.
    """

    schema: str | None = None
    column: str | None = "json_schema"
    name: str = "json_schema"

    def __post_init__(self) -> None:
        if self.schema is None and self.column is None:
            raise InvalidRequest("there is no schema; give schema, or a column that holds one")
        if self.schema is not None:
            _validator(self.schema)

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where a row's schema is none."""
        given = sample.get(self.column)
        schema = self.schema if given is None else given
        if schema is None:
            return None
        try:
            validator = _validator(schema if isinstance(schema, str) else _text(schema))
        except (InvalidRequest, TypeError, ValueError, RecursionError):
            return -1
        try:
            # A lone surrogate can be spelled in JSON, and is no text: also a ValueError.
            is_valid = validator.is_valid(read_json(sample.completion))
        except (ValueError, OverflowError, RecursionError):
            return 0
        return 1 if is_valid else 0


def _text(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        raise TypeError("a schema is a mapping, or JSON text")
    return json.dumps(schema, ensure_ascii=False)


def read_json(completion: str) -> Any:
    """Return the value that a completion, or its only fenced block, spells.

    Raises:
        ValueError: If it spells none.
        RecursionError: If it is nested too deep.
    """
    blocks = fenced_blocks(completion)
    text = blocks[0].text if len(blocks) == 1 else completion
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once_each)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_retrieval(address: str) -> Any:
    raise LookupError(f"{address} is another document, and none is fetched")


@functools.lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """Return the validator of a schema.

    Raises:
        InvalidRequest: If it is none, too long, nested too deep, or refers to another document.
        ImportError: With the command that installs what is missing.
    """
    try:
        import jsonschema_rs
    except ImportError as error:
        raise ImportError(
            "schemas need 'jsonschema-rs', which is not installed; run: pip install jsonschema-rs"
        ) from error
    if (size := len(schema.encode(errors="surrogatepass"))) > _MOST_SCHEMA_BYTES:
        raise InvalidRequest(
            f"the schema has {size:,} bytes, limit {_MOST_SCHEMA_BYTES:,}; shorten it",
            param="schema",
        )
    try:
        return jsonschema_rs.validator_for(json.loads(schema), retriever=_refuse_retrieval)
    except RecursionError:
        raise InvalidRequest(
            "the schema is nested deeper than can be read; make it flatter", param="schema"
        ) from None
    except (ValueError, TypeError, OverflowError, jsonschema_rs.ReferencingError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidRequest(f"the schema is no JSON schema: {reason}", param="schema") from None
