"""Settings of MAPL that do not go together are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steerward.protocol.instructions import INSTRUCTION_KINDS
from steerward.protocol.mapl import MaplSettings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"held_out_kinds": ["startend:quotation", "keywords:magic"]},
            "no kind .*'keywords:magic'",
        ),
        ({"held_out_kinds": [*INSTRUCTION_KINDS]}, "38 of 38 kinds .*and 0 left"),
        ({"held_out_kinds_share": 0.96, "min_instructions": 3}, "36 of 38 kinds .*and 2 left"),
        ({"held_out_kinds": ["startend:quotation"] * 2}, "1 of 38 kinds .* at least 2"),
        ({"held_out_kinds_share": 0.01}, "0 of 38 kinds .* at least 2"),
        ({"min_instructions": 5}, "max_instructions is 4, below"),
        ({"lambda_inter": -1.0}, "greater than or equal to 0"),
        ({"lambda_intra": float("inf")}, "finite number"),
        ({"logged": ["a", "a"]}, "'a' would be measured twice"),
        ({"logged": ["instructions_followed"]}, "'instructions_followed' would be measured twice"),
    ],
)
def test_settings_of_mapl_that_do_not_fit_together_are_refused(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        MaplSettings.model_validate(given)


def test_a_single_kind_may_be_held_out_where_prompts_have_one_instruction_or_none_is_measured() -> (
    None
):
    held_out = {"held_out_kinds": ["startend:quotation"]}
    MaplSettings.model_validate({**held_out, "min_instructions": 1})
    MaplSettings.model_validate({**held_out, "evaluation_prompts": 0})
