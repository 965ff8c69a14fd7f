"""What every body on the wire has in common.

Requests refuse unknown keys; answers may grow, so the answer types keep keys they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

# pydantic reports every wrong element and key, each with memory of its own: a body of millions
# of them must end at the first, so lists fail fast and mappings have a limit.
_MOST_KEYS = 32


def num_keys(value: object) -> int:
    """Return how many keys a value has, 0 if it is no mapping."""
    return len(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else 0


class RequestModel(BaseModel):
    """A part of a request: strict, frozen, nothing unknown."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: object) -> object:
        if num_keys(value) > max(_MOST_KEYS, len(cls.model_fields)):
            known = ", ".join(cls.model_fields)
            raise ValueError(
                f"{num_keys(value):,} keys; the known ones are {known}; remove the others"
            )
        return value


class AnswerModel(BaseModel):
    """A part of an answer: frozen, and open to keys of later versions."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)


def _check_unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"not Unicode text: a lone surrogate at position {error.start}; send whole characters"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_check_unicode)]
"""Text that a tokenizer can read; JSON escapes can spell what is none."""
