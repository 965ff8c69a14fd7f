from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest

from steerward.judges import (
    CodeTests,
    ExactAnswer,
    InstructionFollowing,
    JsonSchema,
    Keywords,
    LanguageModelJudge,
    Length,
    Mixture,
    Pattern,
    RewardThreshold,
)
from steerward.judges.judge import completion_text, prompt_text, samples_of
from steerward.protocol.errors import InvalidRequest

USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Fine."}
TRL = ["prompts", "completions", "gold_completions", "shuffle_order"]


@pytest.mark.parametrize(
    "kind",
    [
        *(CodeTests, ExactAnswer, InstructionFollowing, JsonSchema, Keywords, LanguageModelJudge),
        *(Length, Mixture, Pattern, RewardThreshold),
    ],
)
def test_every_judge_has_the_signature_of_trl_with_rows(kind: type) -> None:
    parameters = inspect.signature(kind.judge).parameters  # type: ignore[attr-defined]
    assert list(parameters) == ["self", *TRL, "rows"]
    assert parameters["rows"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["gold_completions"].default is None
    assert parameters["shuffle_order"].default is True


def test_messages_and_text_are_the_same_completion() -> None:
    assert completion_text("Fine.") == completion_text([ANSWER]) == "Fine."
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "Fine."}]}]
    assert completion_text(parts) == "Fine."


def test_prompts_of_several_turns_name_their_roles() -> None:
    assert prompt_text([USER]) == prompt_text("Hello") == "Hello"
    assert prompt_text([USER, ANSWER, USER]) == "user: Hello\n\nassistant: Fine.\n\nuser: Hello"


@pytest.mark.parametrize(
    "completion",
    [
        [],
        {"role": "assistant", "content": "x"},
        [{"content": "x"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": [{"type": "image_url", "image_url": "x"}]}],
        3,
    ],
    ids=["empty", "one message", "no role", "no content", "picture", "number"],
)
def test_what_is_no_text_is_refused_with_its_place(completion: object) -> None:
    with pytest.raises(InvalidRequest, match=r"completions\[0\]"):
        samples_of(["Hello"], [completion])  # type: ignore[list-item]


def test_arguments_of_other_lengths_are_refused_with_all_of_them() -> None:
    with pytest.raises(InvalidRequest, match="2 prompts, 1 completions, 3 rows"):
        samples_of(["a", "b"], ["x"], rows=[{}, {}, {}])
    with pytest.raises(InvalidRequest, match="0 gold_completions"):
        samples_of(["a"], ["x"], [])


def test_without_rows_a_judge_that_reads_a_column_does_not_apply() -> None:
    assert ExactAnswer().judge(["a"], ["x"]) == [None]


def test_order_and_shuffling_change_no_verdict() -> None:
    judge = Length(maximum=1)
    texts = ["one", "one two", "one"]
    assert judge.judge(["p"] * 3, texts, None, False) == judge.judge(["p"] * 3, texts) == [1, 0, 1]


def test_threads_share_a_judge() -> None:
    judge = Mixture([Length(maximum=2), ExactAnswer(), Pattern(pattern="a+")])

    def ask(number: int) -> bool:
        texts = [f"a {number}", f"a {number} too long"]
        judged = judge.judge(["p", "p"], texts, rows=[{"answer": f"a {number}"}, {}])
        return judged.satisfied == [True, False]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
