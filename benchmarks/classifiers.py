"""A plain sequence classifier with 19 labels under concurrent clients: beside infinity.

    python -m benchmarks.classifiers [--infinity-python PATH] [--rounds N] [--out FILE.json]

infinity's `/classify` serves what transformers' text-classification pipeline loads: sequence
classifiers, a Llama among them, but no gate that reads the prompt. So both get a checkpoint without
a gate, whose 19 rewards must be equal. Short texts and clients are those of `concurrency`.
infinity is measured where it is installed: here, or in the environment of an interpreter given.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.command import main
from benchmarks.plain import rendered
from benchmarks.served import ServedSubject, ServerSubject, free_port, version_of
from benchmarks.subjects import ALONE, Subject, opened
from benchmarks.throughput import CHECK, compare, comparison
from benchmarks.tokens import needed_tokens
from benchmarks.workload import NUM_OBJECTIVES, Item, short_singles, write_classifier

STEERWARD, INFINITY = "Steerward", "infinity"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    clients: int = 32
    requests: int = 512
    """Requests of a round, from all clients together."""
    layers: int = 8
    width: int = 512
    infinity_python: str = sys.executable
    """Interpreter of an environment with infinity-emb."""


class PlainClassifier(Subject):
    """transformers alone, one sequence at a time."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self._computed_tokens = 0

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far."""
        return self._computed_tokens

    @torch.inference_mode()
    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the rewards of every candidate, one after the other."""
        rewards: list[float] = []
        for text in (text for item in items for text in rendered(self._tokenizer, item)):
            ids = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            self._computed_tokens += ids.numel()
            rewards.extend(self._model(ids).logits[0].tolist())
        return rewards

    def close(self) -> None:
        """Nothing was started."""


class RewardsSubject(ServerSubject):
    """The server, of which the rewards are read."""

    def scores(self, answer: Any) -> list[float]:
        """Return the rewards of every candidate in the order of the heads."""
        candidates = answer["items"][0]["candidates"]
        return [
            one["rewards"][f"objective_{i}"] for one in candidates for i in range(NUM_OBJECTIVES)
        ]


class InfinitySubject(ServedSubject):
    """infinity's server, a text a request, without its telemetry."""

    path = "/classify"
    computed_tokens = 0  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, folder: Path, *, python: str, clients: int) -> None:
        command = [python, "-c", "from infinity_emb.cli import cli; cli()", "v2"]
        command += ["--model-id", str(folder), "--served-model-name", "bench"]
        command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
        command += ["--no-bettertransformer", "--no-model-warmup"]
        command += ["--host", "127.0.0.1", "--port", str(free_port())]
        variables = {
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        }
        super().__init__(command, clients=clients, variables=variables)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def requests(self, item: Item) -> list[dict[str, Any]]:
        """Return a request for each text."""
        texts = rendered(self._tokenizer, item)
        return [{"model": "bench", "input": [text], "raw_scores": True} for text in texts]

    def scores(self, answer: Any) -> list[float]:
        """Return the raw scores in the order of the labels; they come by size."""
        by_label = {one["label"]: one["score"] for one in answer["data"][0]}
        return [by_label[f"LABEL_{i}"] for i in range(NUM_OBJECTIVES)]


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the throughput of each server on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If rewards differ by more than the tolerance.
    """
    write_classifier(folder, layers=setting.layers, width=setting.width)
    workload = short_singles(setting.requests)
    python, clients = setting.infinity_python, setting.clients
    with ExitStack() as stack:
        alone = stack.enter_context(opened(PlainClassifier(folder)))
        server = RewardsSubject(folder, clients=clients)
        subjects = {ALONE: alone, STEERWARD: stack.enter_context(opened(server))}
        if version := version_of(python, "infinity-emb"):
            peer = InfinitySubject(folder, python=python, clients=clients)
            subjects[f"{INFINITY} {version}"] = stack.enter_context(opened(peer))
        else:
            print(f"{INFINITY}: not installed, left out", file=sys.stderr)
        result = compare(
            subjects,
            workload,
            rounds=setting.rounds,
            expected=alone.score(workload(CHECK)),
            needed_tokens=needed_tokens(folder, workload(CHECK)),
        )
    title = f"19 labels without a gate, short texts, {clients} clients"
    return {**result, "tables": [comparison(title, result, baseline=ALONE)]}


if __name__ == "__main__":
    main(Setting, run)
