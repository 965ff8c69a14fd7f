from __future__ import annotations

import pytest

from steerward.judges import Keywords, Language, Length, Pattern
from steerward.protocol.errors import InvalidRequest
from tests.judges.asking import verdict_of


@pytest.mark.parametrize(
    ("completion", "verdict"), [("one", 0), ("one two", 1), ("one  two\nthree", 1), ("a b c d", 0)]
)
def test_words_are_counted_within_both_limits(completion: str, verdict: int) -> None:
    assert verdict_of(Length(minimum=2, maximum=3), completion) == verdict


def test_characters_are_counted_too() -> None:
    judge = Length(unit="characters", maximum=3)
    assert (verdict_of(judge, "abc"), verdict_of(judge, "abcd")) == (1, 0)


def test_the_rows_own_limit_goes_first() -> None:
    judge = Length(maximum=3, maximum_column="most", minimum_column="least")
    assert verdict_of(judge, "a b c d", most=4) == 1
    assert verdict_of(judge, "a b c d", most=None) == 0
    assert verdict_of(judge, "a", least=2.0) == 0
    assert verdict_of(judge, "a", least="two") == -1
    assert verdict_of(Length(maximum_column="most"), "a b c d") is None


def test_limits_that_bound_nothing_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no limit"):
        Length()
    with pytest.raises(InvalidRequest, match="at least 3 and at most 2"):
        Length(minimum=3, maximum=2)


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [("Art and music", 1), ("music", 0), ("start music", 0), ("Art, music and WAR", 0)],
)
def test_keywords_must_and_must_not_be_there(completion: str, verdict: int) -> None:
    judge = Keywords(required=("art", "music"), forbidden=("war",))
    assert verdict_of(judge, completion) == verdict


def test_keywords_can_be_parts_and_keep_their_capitals() -> None:
    assert verdict_of(Keywords(required=("art",), are_whole_words=False), "start") == 1
    assert verdict_of(Keywords(required=("Art",), is_case_sensitive=True), "art") == 0
    assert verdict_of(Keywords(required=("C++ (new)",)), "I like C++ (new)!") == 1


def test_the_rows_own_keywords_go_first() -> None:
    judge = Keywords(required=("art",), required_column="must", forbidden_column="must_not")
    assert verdict_of(judge, "music", must=["music"]) == 1
    assert verdict_of(judge, "music", must="music", must_not=["music"]) == 0
    assert verdict_of(judge, "music", must=[3]) == -1
    assert verdict_of(judge, "music", must=7) == -1
    assert verdict_of(Keywords(required_column="must"), "music") is None


def test_no_keywords_and_empty_ones_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no keywords"):
        Keywords()
    with pytest.raises(InvalidRequest, match="empty"):
        Keywords(required=(" ",))


def test_a_pattern_matches_a_part_or_the_whole() -> None:
    assert verdict_of(Pattern(pattern=r"\d+"), "about 12") == 1
    assert verdict_of(Pattern(pattern=r"\d+", is_whole=True), "about 12") == 0
    assert verdict_of(Pattern(pattern=r"\d+", is_whole=True), " 12\n") == 1
    assert verdict_of(Pattern(pattern=r"\d+", must_match=False), "about 12") == 0


def test_the_rows_own_pattern_goes_first() -> None:
    judge = Pattern(pattern="a", column="regex")
    assert verdict_of(judge, "b", regex="b") == 1
    assert verdict_of(judge, "b", regex="(") == -1
    assert verdict_of(judge, "b", regex=5) == -1
    assert verdict_of(judge, "b", regex=10**5000) == -1
    assert verdict_of(Pattern(column="regex"), "b") is None


def test_a_pattern_that_never_ends_is_a_failure_of_the_judge() -> None:
    assert verdict_of(Pattern(pattern=r"(a|aa)+$"), "a" * 60 + "b") == -1


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no pattern"):
        Pattern()
    with pytest.raises(InvalidRequest, match="no regular expression"):
        Pattern(pattern="(")


def test_languages_are_told_apart() -> None:
    english = "This is the answer to the question, and it is in English."
    french = "Voici la réponse à la question, et elle est dans une langue que nous parlons."
    assert verdict_of(Language(language="en"), english) == 1
    assert verdict_of(Language(language="en"), french) == 0
    judge = Language(column="language")
    assert verdict_of(judge, french, language="fr") == 1
    assert verdict_of(judge, french) is None


def test_unknown_languages_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="'xx'.*en"):
        Language(language="xx")
    with pytest.raises(InvalidRequest, match="'English'"):
        verdict_of(Language(column="language"), "Hello", language="English")
    with pytest.raises(InvalidRequest, match="no language"):
        Language()


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("a" * 1001, "1,001 characters, limit 1,000"),
        ("(" * 3000 + ")" * 3000, "6,000 characters"),
        ("(" * 499 + ")" * 499, "nested deeper"),
        ("a{" + "9" * 400 + "}", "limit 100,000"),
        ("(?:(?:a{1000}){1000}){1000}", "limit 100,000"),
    ],
    ids=["long", "long and deep", "deep", "huge count", "many repeats"],
)
def test_a_pattern_beyond_the_limits_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Pattern(pattern=pattern)
    assert verdict_of(Pattern(column="regex"), "a", regex=pattern) == -1


def test_the_largest_limits_are_compared() -> None:
    assert verdict_of(Length(minimum_column="least"), "a", least=10**400) == 0
    assert verdict_of(Length(maximum_column="most"), "a", most=10**400) == 1
    assert verdict_of(Length(maximum_column="most"), "a", most=float("inf")) == -1
