"""Streams of other servers: any cut of the bytes, any order of choices, nothing believed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.policy.generation import Piece, TokenChoice, TokenLogprob
from steerward.policy.remote_stream import ChunkReader, EventParser
from steerward.protocol.errors import DeadlineExceeded, EngineFailure


def chat(*choices: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"object": "chat.completion.chunk", "choices": list(choices), **fields})


def delta(index: int, text: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, **fields}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def read(events: list[str], samples: tuple[int, ...] = (0,)) -> tuple[list[Piece], ChunkReader]:
    reader = ChunkReader(samples, server="http://peer")
    pieces = [piece for event in events for piece in reader.read(event)]
    last = reader.end()
    return pieces + ([last] if last is not None else []), reader


def failure(*events: str, samples: tuple[int, ...] = (0,)) -> str:
    with pytest.raises(EngineFailure) as caught:
        read(list(events), samples)
    return caught.value.message


STREAM = (
    ': ping\n\ndata: {"a": 1}\r\n\r\nevent: x\nid: 7\ndata:two\ndata: lines\n\n\n'
    "data: \u2028 and \x85 é\n\ndata: [DONE]\n\n"
).encode()


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=30))
def test_events_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    parser = EventParser()
    ends = [0, *sorted(cuts), len(STREAM)]
    events = [
        event for start, end in itertools.pairwise(ends) for event in parser.feed(STREAM[start:end])
    ]
    assert events == ['{"a": 1}', "two\nlines", "\u2028 and \x85 é", "[DONE]"]


def feed(parser: EventParser, data: bytes, *, times: int = 1) -> list[str]:
    return [event for _ in range(times) for event in parser.feed(data)]


def test_events_that_are_no_text_are_refused() -> None:
    with pytest.raises(EngineFailure, match="not UTF-8"):
        feed(EventParser(), b"data: \xff\n\n")


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["one line", "many lines"])
def test_events_that_never_end_are_refused(end: bytes) -> None:
    with pytest.raises(EngineFailure, match="16,777,216 bytes"):
        feed(EventParser(), b"data: " + b"x" * 2**20 + end, times=17)


def test_choices_become_samples_and_the_usage_is_on_the_last_piece() -> None:
    pieces, reader = read(
        [
            chat({"index": 0, "delta": {"role": "assistant", "content": ""}}),
            chat(delta(1, "Yes")),
            chat(delta(0, "No"), delta(1, ".")),
            chat(delta(1, None, finish_reason="length")),
            chat(delta(0, "", finish_reason="stop")),
            chat(usage=usage(9, 6), system_fingerprint="fp"),
            "[DONE]",
        ],
        samples=(4, 2),
    )
    assert pieces == [
        Piece(2, "Yes"),
        Piece(4, "No"),
        Piece(2, "."),
        Piece(2, finish_reason="length"),
        Piece(4, num_tokens=6, finish_reason="stop"),
    ]
    assert reader.prompt_tokens == 9
    assert reader.system_fingerprint == "fp"


def test_without_a_usage_each_piece_of_text_counts_as_a_token() -> None:
    pieces, reader = read(
        [chat(delta(0, "a")), chat(delta(0, "b")), chat(delta(0, "c", finish_reason="stop"))]
    )
    assert sum(piece.num_tokens for piece in pieces) == 3
    assert reader.prompt_tokens == 0


def test_log_probabilities_of_chat_chunks() -> None:
    token = {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [0xC3],
        "top_logprobs": [{"token": "é", "logprob": -1, "bytes": None}],
    }
    ended = delta(0, None, finish_reason="stop", logprobs=None)
    pieces, _ = read(
        [chat(delta(0, "x", logprobs={"content": [token, token]})), chat(ended, usage=usage(1, 3))]
    )
    expected = TokenLogprob(
        TokenChoice("\ufffd", -0.5, b"\xc3"), (TokenChoice("é", -1.0, "é".encode()),)
    )
    assert pieces == [
        Piece(0, "x", 2, (expected, expected)),
        # The closing token, which has no log-probability here.
        Piece(0, num_tokens=1, finish_reason="stop"),
    ]


def test_log_probabilities_of_the_older_endpoint() -> None:
    logprobs = {
        "tokens": ["On", "ce"],
        "token_logprobs": [-0.25, -9999],
        "top_logprobs": [{"On": -0.25, "In": -2.0}, None],
        "text_offset": [0, 2],
    }
    choice = {"index": 0, "text": "Once", "logprobs": logprobs, "finish_reason": "length"}
    pieces, _ = read([chat(choice)])
    first = TokenChoice("On", -0.25, b"On")
    assert pieces == [
        Piece(
            0,
            "Once",
            2,
            (
                TokenLogprob(first, (first, TokenChoice("In", -2.0, b"In"))),
                TokenLogprob(TokenChoice("ce", -9999.0, b"ce")),
            ),
            "length",
        )
    ]


def test_what_follows_the_end_is_left_out() -> None:
    ended = chat(delta(0, "a", finish_reason="stop"))
    pieces, _ = read([ended, chat(delta(0, "")), ended, "[DONE]", "not JSON"])
    assert [piece.text for piece in pieces] == ["a"]


def test_an_error_in_the_stream_is_raised() -> None:
    reader = ChunkReader((0,), server="http://peer")
    with pytest.raises(EngineFailure, match="http://peer failed: out of memory"):
        reader.read(json.dumps({"error": {"message": "out of memory", "code": 500}}))
    late = {"error": {"message": "late", "code": "deadline_exceeded"}}
    with pytest.raises(DeadlineExceeded, match="late"):
        reader.read(json.dumps(late))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{", "not JSON"),
        ("[]", "of type list and no object"),
        ("{}", "choices is None"),
        (chat({"delta": {}}), "index None of 1"),
        (chat(delta(1, "a")), "index 1 of 1"),
        (chat(delta(-1, "a")), "index -1 of 1"),
        (chat(delta(0, 3)), "text of a choice is 3"),  # pyright: ignore[reportArgumentType]
        (chat({"index": 0, "delta": "a"}), "delta is of type str"),
        (chat(delta(0, "a", finish_reason="content_filter")), "'content_filter'; known are"),
        (chat(delta(0, "a", logprobs=[])), "logprobs is of type list"),
        (chat(delta(0, "a", logprobs={"content": [{"token": "a"}]})), "log-probability.*None"),
        (chat(delta(0, "a", logprobs={"content": [{"token": 1, "logprob": 0}]})), "token is 1"),
        (
            chat(delta(0, "a", logprobs={"content": [{"token": "a", "logprob": float("nan")}]})),
            "log-probability of a token is nan",
        ),
        (
            chat(delta(0, "", logprobs={"content": [{"token": "", "logprob": 0, "bytes": [256]}]})),
            "no bytes",
        ),
        (chat(delta(0, "a", logprobs={"tokens": ["a"], "token_logprobs": []})), "1 tokens have 0"),
        (chat(usage={"prompt_tokens": 1}), "usage.completion_tokens is None"),
        (chat(usage=usage(-1, 2)), "usage.prompt_tokens is -1"),
    ],
)
def test_what_is_not_as_openai_writes_it_is_told(event: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failure(event))


@pytest.mark.parametrize("events", [[], ["[DONE]"], [chat(delta(0, "a", finish_reason="stop"))]])
def test_a_stream_that_ends_too_early_is_told(events: list[str]) -> None:
    assert "of 2 completions unfinished" in failure(*events, samples=(0, 1))


def test_no_completion_is_told_in_an_error() -> None:
    secret = "the completion itself"
    assert secret not in failure(json.dumps([secret]))
    assert secret not in failure(chat({"index": 0, "delta": secret}))
    assert secret not in failure("{" + secret)
