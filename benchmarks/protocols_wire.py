"""What clients of each protocol send for samples, and which number they read from the answer.

Texts are in ChatML where the protocol joins prompt and answer, as a Qwen policy would write them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.workload import Item

NAME = "bench"
"""Under which the reward model is served."""

Shape = Literal["one sample", "a batch", "a group"]
"""What a request holds: one sample, several prompts with one answer each, or several answers."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one kind of client asks."""

    name: str
    path: str
    shape: Shape
    body: Callable[[Sequence[Item]], Body]
    """Returns what is sent for items."""
    read: Callable[[Any], list[float]]
    """Returns the number of each candidate, as the client reads it."""


def _pairs(items: Sequence[Item]) -> list[tuple[str, str]]:
    return [(item.prompt, answer) for item in items for answer in item.candidates]


def _asked(prompt: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def _joined(items: Sequence[Item]) -> list[str]:
    return [f"{_asked(prompt)}{answer}<|im_end|>\n" for prompt, answer in _pairs(items)]


def _native(items: Sequence[Item]) -> Body:
    return {"items": [item.body() for item in items]}


def _openrlhf(items: Sequence[Item]) -> Body:
    prompts = [_asked(prompt) for prompt, _ in _pairs(items)]
    return {"query": _joined(items), "prompts": prompts, "labels": [""] * len(prompts)}


def _slime(items: Sequence[Item]) -> Body:
    ((prompt, answer),) = _pairs(items)
    return {"prompt": _asked(prompt), "response": f"{answer}<|im_end|>", "label": None}


def _turns(items: Sequence[Item]) -> list[dict[str, str]]:
    ((prompt, answer),) = _pairs(items)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _nemo_gym(items: Sequence[Item]) -> Body:
    ((prompt, answer),) = _pairs(items)
    text = {"type": "output_text", "text": answer, "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed"}
    return {
        "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
        "response": {
            **{"id": "r", "object": "response", "created_at": 0, "model": "m", "tools": []},
            **{"parallel_tool_calls": False, "tool_choice": "auto"},
            "output": [{**message, "content": [text]}],
        },
    }


def _one_text(key: str, **others: Any) -> Callable[[Sequence[Item]], Body]:
    return lambda items: {**others, key: _joined(items)[0]}


def _answers(prompt_key: str, answers_key: str, **others: Any) -> Callable[[Sequence[Item]], Body]:
    return lambda items: {
        **others,
        prompt_key: items[0].prompt,
        answers_key: items[0].candidates,
    }


def _in_request_order(entries: Sequence[Mapping[str, Any]]) -> list[float]:
    return [entry["score"] for entry in sorted(entries, key=lambda entry: entry["index"])]


def native(shape: Shape) -> Protocol:
    """Return our own route, which the others of a shape are compared with."""
    return Protocol(
        f"/v1/score, {shape}",
        "/v1/score",
        shape,
        _native,
        lambda answer: [c["score"] for item in answer["items"] for c in item["candidates"]],
    )


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("OpenRLHF", "/get_reward", "one sample", _openrlhf, lambda a: a["rewards"]),
    Protocol("slime", "/compat/slime", "one sample", _slime, lambda a: [a]),
    Protocol(
        "classify (verl with vLLM)",
        "/classify",
        "one sample",
        _one_text("input", model=NAME, use_activation=False),
        lambda a: [a["data"][-1]["probs"][-1]],
    ),
    Protocol(
        "embeddings (verl with SGLang)",
        "/v1/embeddings",
        "one sample",
        _one_text("input", model=NAME),
        lambda a: [a["data"][-1]["embedding"][-1]],
    ),
    Protocol("verify (NeMo Gym)", "/verify", "one sample", _nemo_gym, lambda a: [a["reward"]]),
    Protocol(
        "chat (NIM)",
        "/v1/chat/completions",
        "one sample",
        lambda items: {"model": NAME, "messages": _turns(items)},
        lambda a: [float(a["choices"][0]["message"]["content"].removeprefix("reward:"))],
    ),
    Protocol(
        "pooling (vLLM)",
        "/pooling",
        "one sample",
        _one_text("input", model=NAME),
        lambda a: [a["data"][0]["data"][-1]],
    ),
    Protocol(
        "classify (SGLang)",
        "/classify",
        "one sample",
        _one_text("text"),
        lambda a: [a["embedding"][-1]],
    ),
    Protocol("OpenRLHF to 0.9.0", "/get_reward", "a batch", _openrlhf, lambda a: a["rewards"]),
    Protocol(
        "LLaMA-Factory",
        "/v1/score/evaluation",
        "a batch",
        lambda items: {"model": "model", "messages": _joined(items)},
        lambda a: a["scores"],
    ),
    Protocol(
        "predict (TEI)",
        "/predict",
        "a batch",
        lambda items: {"inputs": [list(pair) for pair in _pairs(items)], "raw_scores": True},
        lambda a: [labels[0]["score"] for labels in a],
    ),
    Protocol(
        "rerank (TEI)",
        "/rerank",
        "a group",
        _answers("query", "texts", raw_scores=True),
        _in_request_order,
    ),
    Protocol(
        "score (vLLM)",
        "/score",
        "a group",
        _answers("queries", "documents", model=NAME),
        lambda a: _in_request_order(a["data"]),
    ),
    Protocol(
        "score (SGLang)",
        "/score",
        "a group",
        _answers("query", "items"),
        lambda a: [row[-1] for row in a["scores"]],
    ),
)
"""Every protocol, in the requests that its clients make."""
