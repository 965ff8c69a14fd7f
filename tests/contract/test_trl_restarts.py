"""TRL's GRPOTrainer while its reward server is restarted: no reward is lost, and none is wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.served import free_port
from steerward.clients import Client
from steerward.clients.trl import reward_funcs
from tests.contract.training import trainer_of
from tests.golden_cases import GOLDEN

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

STEPS = 7
OBJECTIVES = [f"objective_{i}" for i in range(19)]
PROMPTS = ["Hello, how are you?", "Tell me about rainbows.", "What is the time?"]
# A request is sent within this time, to a server that does not read it.
UNDER_WAY_S = 0.5


class Server:
    """A server process that comes back on the same port."""

    def __init__(self, log: Path) -> None:
        self._port = free_port()
        self._log = log
        self.url = f"http://127.0.0.1:{self._port}"
        self.ended_with: list[int] = []
        self._restarts: list[threading.Thread] = []
        self._process = self._started()

    @property
    def log(self) -> str:
        """What all processes wrote so far."""
        return self._log.read_text()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "steerward", "serve", "--port", str(self._port)]
        command += ["--reward-model", str(GOLDEN / "armorm"), "--policy", "none", "--no-jobs"]
        with self._log.open("ab") as log:
            return subprocess.Popen([*command, "--device", "cpu"], stderr=log)

    def end_under_way(self, kind: signal.Signals) -> None:
        """Let the next request reach the server and wait there; then end it, and start another."""
        self._process.send_signal(signal.SIGSTOP)

        def restart() -> None:
            time.sleep(UNDER_WAY_S)
            self._process.send_signal(kind)
            self._process.send_signal(signal.SIGCONT)
            self.ended_with.append(self._process.wait(timeout=60.0))
            self._process = self._started()

        self._restarts.append(threading.Thread(target=restart))
        self._restarts[-1].start()

    def stop(self) -> None:
        """Kill the process, when no restart is under way any more."""
        for thread in self._restarts:
            thread.join(timeout=90.0)
        self._process.kill()
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "server.log")
    yield found
    found.stop()


class Recorder:
    """A reward function that keeps each batch, and does something before one is scored."""

    __name__ = "recorder"

    def __init__(self, before: dict[int, Callable[[], None]]) -> None:
        self.batches: list[tuple[list[str], list[str]]] = []
        self._before = before

    def __call__(self, prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        self.batches.append((prompts, completions))
        self._before.get(len(self.batches), lambda: None)()
        return [0.0] * len(prompts)


def trained(functions: list[Any], folder: Path) -> list[dict[str, float]]:
    """Return what TRL logs of each step of a run."""
    config = partial(GRPOConfig, max_steps=STEPS, max_completion_length=6)
    trainer = trainer_of(GRPOTrainer, config, folder, functions, {"prompt": PROMPTS})
    trainer.train()
    assert trainer.state.global_step == STEPS
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def scored_afterwards(url: str, prompts: list[str], completions: list[str]) -> dict[str, float]:
    """Return the mean score and rewards of a batch, by the names under which TRL logs them."""
    with Client(url) as client:
        rows = [
            client.score(prompt, [completion]).items[0].candidates[0]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
    columns = {"score": [row.score for row in rows if row.score is not None]}
    columns |= {name: [row.rewards[name] for row in rows] for name in OBJECTIVES}
    return {
        f"rewards/steerward_{name}/mean": sum(values) / len(rows)
        for name, values in columns.items()
    }


def test_restarts_in_the_middle_of_a_run_change_no_reward(server: Server, tmp_path: Path) -> None:
    """The server is ended twice while it holds an unanswered request: by SIGTERM and by SIGKILL."""
    recorder = Recorder(
        {
            3: lambda: server.end_under_way(signal.SIGTERM),
            5: lambda: server.end_under_way(signal.SIGKILL),
        }
    )
    # The names are known, so that the run may begin before its server is up.
    functions = reward_funcs(server.url, objectives=OBJECTIVES, log_gates=False)
    logged = trained([recorder, *functions], tmp_path)
    assert server.ended_with == [-signal.SIGTERM, -signal.SIGKILL]
    assert all(logged[place]["step_time"] > UNDER_WAY_S for place in (2, 4))
    assert server.log.count("Application startup complete") == 3
    assert server.log.count("Application shutdown complete") == 1
    assert len(logged) == len(recorder.batches) == STEPS
    for entry, (prompts, completions) in zip(logged, recorder.batches, strict=True):
        expected = scored_afterwards(server.url, prompts, completions)
        assert len(expected) == 20
        assert {name: entry[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert entry["reward"] == pytest.approx(sum(expected.values()), abs=1e-3)
    # No two steps had the same rewards, so that one in another's place would have been seen.
    scores = {round(entry["rewards/steerward_score/mean"], 5) for entry in logged}
    assert len(scores) == STEPS
