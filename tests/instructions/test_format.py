"""The form of a response, as the published kinds take it."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

BULLETS = "detectable_format:number_bullet_lists"
HIGHLIGHTS = "detectable_format:number_highlighted_sections"
SECTIONS = "detectable_format:multiple_sections"
JSON = "detectable_format:json_format"
TITLE = "detectable_format:title"
CONSTRAINED = "detectable_format:constrained_response"
CHOICE = "steerward:choice"

CASES: list[Case] = [
    (BULLETS, {"num_bullets": 3}, "* a\n  * b\n- c\n**no bullet**", True),
    (BULLETS, {"num_bullets": 2}, "* a\n\n\n  * b\n- c", False),
    ("steerward:numbered_list", {"num_items": 2}, "1. a\n 2) b\n3.c", True),
    ("steerward:numbered_list", {"num_items": 1}, "1. a\n2. b", False),
    (HIGHLIGHTS, {"num_highlights": 2}, "*one* and **two** and ** **", True),
    (HIGHLIGHTS, {"num_highlights": 2}, "*one* and *\n**", False),
    (SECTIONS, {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1 a SECTION2", True),
    (SECTIONS, {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1 a Section 2", False),
    (SECTIONS, {"section_spliter": "PART (", "num_sections": 1}, "PART (1)", True),
    (JSON, {}, '```json\n{"a": [1]}\n```', True),
    (JSON, {}, "[1, 2]", True),
    (JSON, {}, 'Here: {"a": 1}', False),
    (JSON, {}, "[" * 100_000, False),
    (TITLE, {}, "Look:\n<<A day>> at sea", True),
    (TITLE, {}, "<< >>\n<<\n>>", False),
    (TITLE, {}, "<<>>", False),
    (CONSTRAINED, {}, "Well. My answer is no. Sorry.", True),
    (CONSTRAINED, {}, "no", False),
    (CHOICE, {"options": ["Yes.", "No."]}, " No.\n", True),
    (CHOICE, {"options": ["Yes.", "No."]}, "No. Never.", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_form_is_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
