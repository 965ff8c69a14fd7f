"""Rewards that another process gives: asked for once a batch, in groups of one prompt."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.align_work import LONGEST_LINE_BYTES, RewardsGiven, RewardsWanted
from steerward.protocol.errors import ConnectionFailed, InvalidRequest
from steerward.training.align.asked_rewards import AskedColumns, asked_source

PROMPTS: list[Any] = [[{"role": "user", "content": "Hi"}]] * 2 + ["Why?"]
COMPLETIONS: list[Any] = [[{"role": "assistant", "content": "a"}], "bb", "ccc"]


MOST = 8


class Asked:
    """Answers with the lengths, and keeps the questions."""

    def __init__(self) -> None:
        self.questions: list[RewardsWanted] = []

    def __call__(self, wanted: RewardsWanted) -> RewardsGiven:
        self.questions.append(wanted)
        return RewardsGiven(
            rewards=[
                [
                    {"length": float(len(text)), "score": None if text == "bb" else 0.5}
                    for text in group.completions
                ]
                for group in wanted.groups
            ]
        )


def test_all_columns_of_a_batch_come_from_one_question() -> None:
    asked = Asked()
    columns = AskedColumns(asked, ["length", "score"], most_candidates=MOST)
    length, score = columns.function("length"), columns.function("score")
    given = {"prompts": PROMPTS, "completions": COMPLETIONS, "answer": ["x"] * 3}
    assert length(**given) == [1.0, 2.0, 3.0]
    assert score(**given) == [0.5, None, 0.5]
    (question,) = asked.questions
    assert question.objectives == ["length", "score"]
    assert [(group.messages[0]["content"], group.completions) for group in question.groups] == [
        ("Hi", ["a", "bb"]),
        ("Why?", ["ccc"]),
    ]


def test_each_completion_is_asked_for_once() -> None:
    asked = Asked()
    columns = AskedColumns(asked, ["length", "score"], most_candidates=MOST)
    length, score = columns.function("length"), columns.function("score")
    length(prompts=["Hi", "Hi", "Why?"], completions=["a", "a", "bb"])
    # As tasks and judges do: parts of a batch, in another order.
    assert score(prompts=["Why?"], completions=["bb"]) == [None]
    assert length(prompts=["Why?", "Hi"], completions=["bb", "a"]) == [2.0, 1.0]
    # The same words after another prompt are another completion.
    length(prompts=["Why?", "Hi"], completions=["a", "a"])
    found = [
        (group.messages[0]["content"], group.completions)
        for question in asked.questions
        for group in question.groups
    ]
    assert found == [("Hi", ["a"]), ("Why?", ["bb"]), ("Why?", ["a"])]


def test_what_was_asked_for_long_ago_is_forgotten() -> None:
    asked = Asked()
    length = AskedColumns(asked, ["length"], most_candidates=5000).function("length")
    for batch in range(4):
        texts = [f"{batch} {place}" for place in range(2000)]
        length(prompts=["Hi"] * len(texts), completions=texts)
    assert length(prompts=["Hi"] * 2, completions=["3 0", "2 1999"]) == [3.0, 6.0]
    assert len(asked.questions) == 4
    assert length(prompts=["Hi"], completions=["0 0"]) == [3.0]
    assert len(asked.questions) == 5


def test_more_completions_of_a_prompt_than_are_taken_at_once_are_several_groups() -> None:
    asked = Asked()
    length = AskedColumns(asked, ["length"], most_candidates=2).function("length")
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    assert length(prompts=["Hi"] * 5, completions=texts) == [1.0, 2.0, 3.0, 4.0, 5.0]
    (question,) = asked.questions
    assert [group.completions for group in question.groups] == [texts[:2], texts[2:4], texts[4:]]


def test_a_long_batch_is_asked_for_in_pieces() -> None:
    asked = Asked()
    length = AskedColumns(asked, ["length"], most_candidates=MOST).function("length")
    texts = [letter * 300_000 for letter in "abcde"] + ["y" * 2_000_000, "z"]
    assert length(prompts=["Hi"] * 7, completions=texts) == [3e5] * 5 + [2e6, 1.0]
    assert [len(one.groups[0].completions) for one in asked.questions] == [3, 2, 1, 1]
    assert all(len(one.model_dump_json()) < LONGEST_LINE_BYTES for one in asked.questions)


@pytest.mark.parametrize(
    "completion",
    [
        [{"role": "assistant", "content": "a"}] * 2,
        [{"role": "assistant", "content": None, "tool_calls": []}],
    ],
    ids=["two turns", "no text"],
)
def test_what_a_reward_model_cannot_read_is_refused(completion: Any) -> None:
    length = AskedColumns(Asked(), ["length"], most_candidates=MOST).function("length")
    with pytest.raises(InvalidRequest, match="can be scored|cannot be scored"):
        length(prompts=["Hi"], completions=[completion])


def test_a_socket_is_asked_and_a_silent_one_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def answer_once() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rwb") as lines:
            wanted = RewardsWanted.model_validate_json(lines.readline())
            lines.write(Asked()(wanted).model_dump_json().encode() + b"\n")
            lines.flush()

    thread = threading.Thread(target=answer_once)
    thread.start()
    source = asked_source(path, version="r1", most_candidates=MOST)
    assert getattr(source, "version", None) == "r1"
    (length,) = source(["length"])
    assert length.__name__ == "length"
    assert length(prompts=["Hi"], completions=["abc"]) == [3.0]
    thread.join()
    listening.close()
    with pytest.raises(ConnectionFailed, match="gives no rewards"):
        length(prompts=["Hi"], completions=["abcd"])
    nobody = asked_source(tmp_path / "nobody", version="r1", most_candidates=MOST)
    with pytest.raises(ConnectionFailed, match="gives no rewards"):
        nobody(["length"])[0](prompts=["Hi"], completions=["a"])
