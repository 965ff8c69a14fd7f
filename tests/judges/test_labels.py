from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerward.judges import LanguageModelJudge, ServerLabels, Template
from steerward.judges.labels import found_labels
from steerward.protocol.errors import ConnectionFailed, InvalidRequest, NotFound, Unauthorized
from tests.contract.conftest import KEY, Served
from tests.policies import ARMORM_RULE, save_policy

HELLO = [{"role": "user", "content": "Hello, how are you?"}]


def answer(*tokens: tuple[str, float]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)} for token, p in tokens]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]}


@contextmanager
def peer(*answers: tuple[int, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server of others: gives its answers in order, the last for ever; keeps the bodies."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            bodies.append(json.loads(self.rfile.read(size)))
            status, body = answers[min(len(bodies), len(answers)) - 1]
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def likeliest(folder: Path) -> list[tuple[str, float]]:
    """The words of the first token of an answer, by a softmax of our own."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(HELLO, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        logits_V = model(torch.tensor([ids])).logits[0, -1]
    found = torch.softmax(logits_V, dim=-1).topk(20)
    by_word: dict[str, float] = {}
    for p, i in zip(found.values.tolist(), found.indices.tolist(), strict=True):
        word = tokenizer.decode([i]).strip()
        by_word[word] = by_word.get(word, 0.0) + p
    return [(word, p) for word, p in by_word.items() if word.isalpha()]


def test_our_own_servers_labels_agree_with_a_direct_softmax(served: Served, tmp_path: Path) -> None:
    (first, p_first), (second, p_second), *_ = likeliest(
        save_policy(tmp_path / "tiny", rule=ARMORM_RULE)
    )
    ask = ServerLabels(served.url, model="tiny", api_key=KEY, extra_body={"reward": False})
    found = ask([HELLO, HELLO], (first, second))
    assert found == [pytest.approx((p_first, p_second), rel=1e-3)] * 2
    template = Template(text="Hello, how are you?{completion}", passing=second, failing=first)
    judge = LanguageModelJudge(name="own", template=template, label_probabilities=ask, least_mass=0)
    assert judge.judge(["p"], [""]) == [1 if p_second >= p_first else 0]


def test_a_label_that_is_not_among_the_likeliest_is_not_guessed(served: Served) -> None:
    ask = ServerLabels(served.url, model="tiny", api_key=KEY, extra_body={"reward": False})
    assert ask([HELLO], ("Yes", "nothing of that kind")) == [None]


def test_a_wrong_key_or_model_is_raised_at_once(served: Served) -> None:
    with pytest.raises(Unauthorized):
        ServerLabels(served.url, model="tiny", api_key="other")([HELLO], ("a", "b"))
    with pytest.raises(NotFound):
        ServerLabels(served.url, model="other", api_key=KEY)([HELLO], ("a", "b"))


def test_spellings_of_a_label_are_added_up() -> None:
    body = answer((" Yes", 0.3), ("Yes", 0.2), ("No", 0.1), ("yes", 0.4))
    assert found_labels(body, ("Yes", "No")) == pytest.approx((0.5, 0.1))
    assert found_labels(body, ("Yes", "Maybe")) is None
    assert found_labels(body, (" Yes", "No ")) == pytest.approx((0.5, 0.1))


def test_the_request_asks_for_one_token_and_its_alternatives() -> None:
    with peer((200, answer(("Yes", 0.5), ("No", 0.5)))) as (url, bodies):
        ask = ServerLabels(f"{url}/v1/", model="m", top_logprobs=5, extra_body={"seed": 1})
        assert ask([HELLO], ("Yes", "No")) == [pytest.approx((0.5, 0.5))]
        assert ask([], ("Yes", "No")) == []
    fixed = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": 5}
    assert bodies == [{"model": "m", "messages": HELLO, "seed": 1, **fixed}]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerward.judges.labels._FIRST_RETRY_S", 0.001)


def test_overload_is_asked_again_and_then_given_up(short_waits: None) -> None:
    good = (200, answer(("Yes", 0.9), ("No", 0.1)))
    with peer((503, b"<html>"), (429, {}), good) as (url, bodies):
        found = ServerLabels(url, model="m", max_retries=2, timeout_s=5.0)([HELLO], ("Yes", "No"))
    assert found == [pytest.approx((0.9, 0.1))]
    assert len(bodies) == 3
    with peer((500, {"error": "x"})) as (url, bodies):
        assert ServerLabels(url, model="m", max_retries=1, timeout_s=5.0)(
            [HELLO], ("Yes", "No")
        ) == [None]
    assert len(bodies) == 2


def test_a_server_that_is_not_there_is_not_known(short_waits: None) -> None:
    with peer((200, {})) as (url, _):
        pass
    assert ServerLabels(url, model="m", max_retries=1, timeout_s=5.0)([HELLO], ("Yes", "No")) == [
        None
    ]


@pytest.mark.parametrize("body", [{"choices": [{"logprobs": None}]}, {}, b"<html>"], ids=str)
def test_a_server_without_log_probabilities_is_refused(body: Any) -> None:
    with peer((200, body)) as (url, _), pytest.raises(ConnectionFailed, match="top_logprobs"):
        ServerLabels(url, model="m", timeout_s=5.0)([HELLO], ("Yes", "No"))


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"top_logprobs": 21}, {"max_retries": -1}, {"timeout_s": 0.0}):
        with pytest.raises(InvalidRequest, match=next(iter(settings))):
            ServerLabels("http://127.0.0.1", model="m", **settings)  # type: ignore[arg-type]
