"""Tokens per second of a policy, against transformers: static batches, and `transformers serve`.

    python -m benchmarks.generation [--rounds N] [--policy FOLDER] [--out FILE.json]

The same weights, prompts and lengths for all, tokens taken by highest probability, so that all
write the same texts: that is checked first. Four ways by turns: `generate` in batches of as many
prompts as there are clients, `transformers serve` as it comes, the same with
`--continuous-batching`, and `steerward serve`, the servers over HTTP with as many clients. Then
the price of choosing: the best of 8 against 8 samples that nobody scores.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.command import main, table
from benchmarks.dialogues import QUESTIONS
from benchmarks.measure import interleaved, ratio
from benchmarks.served import Process, free_port
from steerward.models.source import POCKET_POLICY, resolve_source

GENERATE, SERVE = "transformers generate, static batches", "transformers serve"
SERVE_CB = "transformers serve --continuous-batching"
OURS = "steerward serve"
_LEAST_EQUAL = 0.9
BEST_OF, EIGHT = "best of 8", "8 samples, not scored"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 3
    policy: str = POCKET_POLICY
    clients: str = "1,8,32"
    requests_per_client: int = 2
    max_tokens: int = 64
    best_of_requests: int = 16
    best_of_clients: int = 4


Answers = list[tuple[str, int]]
"""Text and number of tokens of each completion."""


class Static:
    """`generate` of transformers on padded batches, in this process.

    Args:
        folder: Checkpoint.
        max_tokens: Of a completion.
    """

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._max_tokens = max_tokens

    def answer(self, prompts: Sequence[str], batch_size: int) -> Answers:
        """Return completions, batch after batch in order of arrival."""
        found: Answers = []
        for first in range(0, len(prompts), batch_size):
            found += self._batch(prompts[first : first + batch_size])
        return found

    @torch.inference_mode()
    def _batch(self, prompts: Sequence[str]) -> Answers:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        inputs = self._tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
        )
        output = self._model.generate(
            **inputs, max_new_tokens=self._max_tokens, do_sample=False, temperature=None, top_p=None
        )
        found: Answers = []
        for row in output[:, inputs["input_ids"].shape[1] :].tolist():
            end = self._tokenizer.eos_token_id
            drawn = row[: row.index(end) + 1] if end in row else row
            found.append((self._tokenizer.decode(drawn, skip_special_tokens=True), len(drawn)))
        return found


class Served:
    """A server with OpenAI's chat completions.

    Args:
        url: Address.
        model: Name to send.
        fields: Further ones of each request.
    """

    def __init__(self, url: str, model: str, fields: Mapping[str, Any]) -> None:
        self._url = url
        self._model = model
        self._fields = fields

    def answer(self, prompts: Sequence[str], clients: int, **fields: Any) -> Answers:
        """Return completions for clients that each have one request open."""
        return asyncio.run(self._answer(prompts, clients, fields))

    async def _answer(
        self, prompts: Sequence[str], clients: int, fields: Mapping[str, Any]
    ) -> Answers:
        free = asyncio.Semaphore(clients)
        async with httpx.AsyncClient(base_url=self._url, timeout=600) as client:

            async def ask(prompt: str) -> tuple[str, int]:
                messages = [{"role": "user", "content": prompt}]
                body = {"model": self._model, "messages": messages, **self._fields, **fields}
                async with free:
                    response = await client.post("/v1/chat/completions", json=body)
                if response.status_code != 200:
                    raise RuntimeError(f"{response.status_code}: {response.text[:300]}")
                answer = response.json()
                text = answer["choices"][0]["message"]["content"]
                return text, answer["usage"]["completion_tokens"]

            return list(await asyncio.gather(*map(ask, prompts)))


def run(setting: Setting, _: Path) -> dict[str, Any]:
    """Return tokens per second of each way, and the price of the best of 8.

    Raises:
        SystemExit: If the ways write different texts.
    """
    folder = resolve_source(setting.policy)
    limits = {"temperature": 0, "max_tokens": setting.max_tokens}
    with ExitStack() as stack:
        static = Static(folder, max_tokens=setting.max_tokens)
        ours = Served(_our_server(stack, folder), "bench", {**limits, "reward": False})
        serve = Served(_their_server(stack, folder), str(folder), limits)
        serve_cb = Served(
            _their_server(stack, folder, "--continuous-batching"), str(folder), limits
        )
        ways: dict[str, Callable[[Sequence[str], int], Answers]] = {
            GENERATE: static.answer,
            SERVE: serve.answer,
            SERVE_CB: serve_cb.answer,
            OURS: ours.answer,
        }
        equal = _check_equal(ways)
        speeds = {
            count: _speeds(ways, count, setting) for count in map(int, setting.clients.split(","))
        }
        price = _price(ours, setting)
    result = {"equal_texts": equal, "tokens_per_s": speeds, "best_of": price}
    return {**result, "tables": _tables(result)}


def _our_server(stack: ExitStack, folder: Path) -> str:
    command = [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu"]
    process = Process([*command, "--policy", str(folder), "--policy-name", "bench"], variables={})
    stack.callback(process.stop)
    return process.url


def _their_server(stack: ExitStack, folder: Path, *flags: str) -> str:
    binary = Path(sys.executable).with_name("transformers")
    command = [str(binary), "serve", str(folder), "--host", "127.0.0.1", "--device", "cpu"]
    command += ["--port", str(free_port()), "--dtype", "float32", *flags]
    process = Process(command, variables={"HF_HUB_OFFLINE": "1"})
    stack.callback(process.stop)
    return process.url


def _check_equal(ways: Mapping[str, Callable[[Sequence[str], int], Answers]]) -> dict[str, float]:
    """Return which share of the texts of each way equals those of `generate` one at a time.

    Two tokens that are equally likely to the last bit are told apart by rounding, so a text may
    part from the others once in a while; an error would part most of them.
    """
    expected = [text for text, _ in ways[GENERATE](QUESTIONS, 1)]
    shares: dict[str, float] = {}
    for name, answer in ways.items():
        texts = [text for text, _ in answer(QUESTIONS, 8)]
        shares[name] = statistics.mean(
            mine.strip() == theirs.strip() for mine, theirs in zip(texts, expected, strict=True)
        )
    wrong = [name for name, share in shares.items() if share < _LEAST_EQUAL]
    if wrong:
        raise SystemExit(f"texts differ, nothing was timed: {shares}")
    return shares


def _speeds(
    ways: Mapping[str, Callable[[Sequence[str], int], Answers]], clients: int, setting: Setting
) -> dict[str, list[float]]:
    count = clients * setting.requests_per_client
    tokens: dict[str, list[int]] = {name: [] for name in ways}

    def method(name: str) -> Callable[[int], object]:
        def answer(number: int) -> None:
            prompts = [f"{QUESTIONS[i % len(QUESTIONS)]} ({number}, {i})" for i in range(count)]
            drawn = sum(size for _, size in ways[name](prompts, clients))
            if number >= 0:
                tokens[name].append(drawn)

        return answer

    seconds = interleaved({name: method(name) for name in ways}, rounds=setting.rounds)
    return {
        name: [t / s for t, s in zip(tokens[name], seconds[name], strict=True)] for name in ways
    }


def _price(ours: Served, setting: Setting) -> dict[str, Any]:
    """Return seconds of the best of 8 and of 8 samples, for the same seeds: the same samples."""

    def prompts(number: int) -> list[str]:
        # New ones in each round: neither policy nor reward model has seen them.
        count = setting.best_of_requests
        return [f"{QUESTIONS[i % len(QUESTIONS)]} ({number}, {i})" for i in range(count)]

    drawn = {"temperature": 0.7, "seed": 1}
    direction = {"direction": {"helpfulness": 1.0}}
    ways: dict[str, Callable[[int], object]] = {
        EIGHT: lambda number: ours.answer(
            prompts(number), setting.best_of_clients, n=8, **drawn, **direction
        ),
        BEST_OF: lambda number: ours.answer(
            prompts(number),
            setting.best_of_clients,
            steering="best_of",
            best_of=8,
            **drawn,
            **direction,
        ),
    }
    seconds = interleaved(ways, rounds=setting.rounds)
    return {"seconds": seconds, "price": ratio(seconds[BEST_OF], seconds[EIGHT])}


def _tables(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[list[str]] = []
    for clients, speeds in result["tokens_per_s"].items():
        for name, values in speeds.items():
            against = ratio(speeds[OURS], values)
            rows.append(
                [
                    name,
                    str(clients),
                    f"{statistics.median(values):,.0f}",
                    "" if name == OURS else f"{against['median']:.2f}",
                ]
            )
    price = result["best_of"]
    return [
        table(
            "tokens per second",
            ["way", "clients", "tokens/s", "times as fast is steerward"],
            rows,
        ),
        table(
            "what choosing costs",
            ["way", "seconds", "times"],
            [
                [EIGHT, f"{statistics.median(price['seconds'][EIGHT]):.2f}", ""],
                [
                    BEST_OF,
                    f"{statistics.median(price['seconds'][BEST_OF]):.2f}",
                    f"{price['price']['median']:.2f}",
                ],
            ],
        ),
    ]


if __name__ == "__main__":
    main(Setting, run)
