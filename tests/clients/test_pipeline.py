"""What callers of a text-classification pipeline do with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.pipeline import pipeline, reward_bench_entry
from steerward.protocol.errors import InputTooLong, InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

RENDERED = "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
ASKED = {"batch_size": 8, "truncation": True, "max_length": 2048, "function_to_apply": "none"}


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


@pytest.fixture
def candidates(url: str) -> Any:
    with Client(url, api_key=KEY) as client:
        return client.score("Hello?", ["Fine.", "No."]).items[0].candidates


def test_texts_and_messages_have_raw_scores(url: str, candidates: Any) -> None:
    scores = [pytest.approx(found.score, abs=1e-4) for found in candidates]
    pipe = pipeline(url, template="chatml", api_key=KEY)
    texts = [RENDERED.format("Fine."), RENDERED.format("No.")]
    messages = [
        [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": answer}]
        for answer in ("Fine.", "No.")
    ]
    assert [found["score"] for found in pipe(texts, **ASKED)] == scores
    assert [found["score"] for found in pipeline(url, api_key=KEY)(messages)] == scores
    assert pipe(texts[0])[0]["score"] == scores[0]
    # As annotation scripts ask and read: output[0]["score"].
    (every,) = pipe(texts[:1], return_all_scores=True, **ASKED)
    assert every[0] == {"label": "score", "score": scores[0]}
    assert [found["label"] for found in every[1:]] == list(candidates[0].rewards)


def test_entry_is_built_as_reward_bench_builds_it(url: str, candidates: Any) -> None:
    entry = reward_bench_entry(url, template="chatml", api_key=KEY)
    model = entry["model_builder"]("any", device_map="auto", trust_remote_code=False)
    tokenizer = SimpleNamespace(pad_token_id=0)
    pipe = entry["pipeline_builder"]("text-classification", model=model, tokenizer=tokenizer)
    assert pipe.tokenizer.pad_token_id == 0
    assert pipe.model.config.pad_token_id is None
    (found,) = pipe([RENDERED.format("Fine.")], **ASKED)
    assert found["score"] == pytest.approx(candidates[0].score, abs=1e-4)


def test_scores_are_never_changed_or_texts_cut(url: str) -> None:
    pipe = pipeline(url, template="chatml", api_key=KEY)
    with pytest.raises(InvalidRequest, match="'sigmoid'"):
        pipe([RENDERED], function_to_apply="sigmoid")
    with pytest.raises(InputTooLong):
        pipe([RENDERED.format("rain " * 3_000)], **ASKED)
    with pytest.raises(InvalidRequest, match=r"texts\[0\]: the text has no markup"):
        pipeline(url)(["Hello? Fine."])
