from __future__ import annotations

import json

import pytest

from steerward.instructions import Instruction
from steerward.judges import InstructionFollowing
from steerward.protocol.errors import InvalidRequest
from tests.judges.asking import verdict_of

ART = {"kind": "keywords:existence", "arguments": {"keywords": ["art"]}}
NO_COMMA = {"kind": "punctuation:no_comma", "arguments": None}


@pytest.mark.parametrize(
    ("completion", "verdict"), [("Art is long.", 1), ("Art, too", 0), ("Music", 0), ("", 0)]
)
@pytest.mark.parametrize(
    "row",
    [
        {"instructions": [ART, NO_COMMA]},
        {"instructions": json.dumps([ART, NO_COMMA])},
        {"instructions": [Instruction("keywords:existence", {"keywords": ["art"]}), NO_COMMA]},
        {
            "instruction_id_list": ["keywords:existence", "punctuation:no_comma"],
            "kwargs": [{"keywords": ["art"], "num_words": None}, {"keywords": None}],
        },
        {
            "instruction_id_list": ["keywords:existence", "punctuation:no_comma"],
            "kwargs": ['{"keywords": ["art"]}', "{}"],
        },
    ],
    ids=["own", "own as JSON", "objects", "IFEval", "IFEval as JSON"],
)
def test_every_instruction_of_the_row_must_be_met(row: dict, completion: str, verdict: int) -> None:
    assert verdict_of(InstructionFollowing(), completion, **row) == verdict


def test_a_row_without_instructions_is_not_judged() -> None:
    assert verdict_of(InstructionFollowing(), "Art") is None
    assert verdict_of(InstructionFollowing(), "Art", instructions=[]) is None


def test_a_loose_variant_is_enough_if_asked_for() -> None:
    completion = "Sure, here it is:\nArt is long."
    row = {"instructions": [ART, NO_COMMA]}
    assert verdict_of(InstructionFollowing(), completion, **row) == 0
    assert verdict_of(InstructionFollowing(is_loose=True), completion, **row) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"instructions": [{"kind": "no:such", "arguments": {}}]},
        {"instructions": [{"arguments": {}}]},
        {"instructions": ["{"]},
        {"instructions": 3},
        {"instruction_id_list": ["punctuation:no_comma"]},
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [3]},
    ],
    ids=["unknown kind", "no kind", "no JSON", "no list", "no arguments", "no mapping"],
)
def test_what_is_no_instruction_is_refused(row: dict) -> None:
    with pytest.raises(InvalidRequest):
        verdict_of(InstructionFollowing(), "Art", **row)
