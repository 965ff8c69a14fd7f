from __future__ import annotations

import json

import pytest

from steerward.judges import JsonSchema
from steerward.protocol.errors import InvalidRequest
from tests.judges.asking import verdict_of

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('Here it is:\n```json\n{"name": "Ada"}\n```\nDone.', 1),
        ('{"age": 36}', 0),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "age": NaN}', 0),
        ('{"name": "Ada", "name": "Bob"}', 0),
        ("Here it is: {}", 0),
        ("", 0),
        ("[" * 100_000, 0),
    ],
)
@pytest.mark.parametrize("is_text", [False, True], ids=["mapping", "text"])
def test_json_follows_the_rows_schema(completion: str, verdict: int, is_text: bool) -> None:
    schema = json.dumps(SCHEMA) if is_text else SCHEMA
    assert verdict_of(JsonSchema(), completion, json_schema=schema) == verdict


def test_a_row_without_schema_has_the_fixed_one_or_none() -> None:
    assert verdict_of(JsonSchema(), "{}") is None
    assert verdict_of(JsonSchema(schema=json.dumps(SCHEMA)), "{}") == 0
    assert verdict_of(JsonSchema(schema=json.dumps(SCHEMA)), "{}", json_schema={}) == 1


@pytest.mark.parametrize(
    "schema",
    [{"type": "nothing"}, "{", 3, {"$ref": "http://127.0.0.1:9/schema.json"}],
    ids=["unknown type", "no JSON", "number", "another document"],
)
def test_a_row_with_what_is_no_schema_is_a_failure_of_the_judge(schema: object) -> None:
    assert verdict_of(JsonSchema(), "{}", json_schema=schema) == -1


def test_a_fixed_schema_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no JSON schema"):
        JsonSchema(schema='{"type": "nothing"}')
    with pytest.raises(InvalidRequest, match="no schema"):
        JsonSchema(column=None)


@pytest.mark.parametrize("completion", ['"\\ud800"', '{"\\ud800": 1}', '["\ud800"]'])
def test_a_lone_surrogate_is_no_text(completion: str) -> None:
    assert verdict_of(JsonSchema(), completion, json_schema={"type": "string"}) == 0


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    deep = '{"not":' * 3000 + "{}" + "}" * 3000
    assert verdict_of(JsonSchema(), "{}", json_schema=deep) == -1
    nested: dict = {}
    for _ in range(3000):
        nested = {"not": nested}
    assert verdict_of(JsonSchema(), "{}", json_schema=nested) == -1
    with pytest.raises(InvalidRequest, match="nested deeper"):
        JsonSchema(schema=deep)


def test_a_schema_that_is_too_long_is_refused() -> None:
    long = json.dumps({"description": "x" * 64 * 1024})
    with pytest.raises(InvalidRequest, match="65,555 bytes, limit 65,536"):
        JsonSchema(schema=long)
    assert verdict_of(JsonSchema(), "{}", json_schema=long) == -1
    assert verdict_of(JsonSchema(), "{}", json_schema=json.loads(long)) == -1


def test_the_largest_numbers_are_judged() -> None:
    assert verdict_of(JsonSchema(), str(10**400), json_schema={"minimum": 10**399}) == 1
    assert verdict_of(JsonSchema(), "9" * 5000, json_schema={"minimum": 0}) == 0
    assert verdict_of(JsonSchema(), "{}", json_schema='{"minimum": ' + "9" * 5000 + "}") == -1
