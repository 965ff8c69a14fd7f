"""Fifth step: rejection-sampling fine-tuning, with the loop that jobs on a server run."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.steering_front import ANGLES, held_out_prompts
from benchmarks.steering_front import Setting as SteeringSetting
from recipes.pocket_policy.conversations import Conversation
from recipes.pocket_policy.directed import draw_turns
from recipes.pocket_policy.labels import Answers
from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.jobs.rsf.loop import LoopInput, LoopPorts, Outcome, RsfLoop
from steerward.jobs.rsf.samples import SampleRow, read_samples
from steerward.jobs.rsf.workspace import Workspace
from steerward.jobs.trainer import ProcessTrainer
from steerward.metrics import Metrics
from steerward.policy.loading import load_policies
from steerward.policy.local.policy import LocalPolicy
from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress
from steerward.protocol.rsf import RsfSettings
from steerward.server.job_ports import ServedPolicy, ServedRewards

# A policy this small hardly hears a direction: what helps most is to compare the same answers under
# many directions, on the scale on which the answers to one prompt differ. And it forgets quickly:
# without text among what it learns, small steps and a penalty on how far it moves, it ends with a
# few answers to everything, which the reward model likes.
SETTINGS = RsfSettings.model_validate(
    {
        "iterations": 3,
        "prompts_per_iteration": 640,
        "directions": 19,
        "directions_per_prompt": 8,
        "candidates_per_prompt": 1,
        "pool": "prompt",
        "reward_scale": "prompt",
        "top_p": 0.95,
        "max_tokens": 96,
        "evaluation_prompts": 120,
        "evaluation_directions": len(ANGLES),
        # Nothing is chosen by the prompts that it is measured on.
        "keep": "last",
        "sft_file": "text",
        "sft_share": 0.3,
        "training": {"learning_rate": 4e-4, "kl_coef": 0.1},
    }
)
_PREPARED = ("master", "report.json")
_CONVERSATIONS = 20_000


def prefer(
    checkpoint: Path,
    conversations: Sequence[Conversation],
    answers: Answers,
    *,
    prompts: str,
    work: Path,
    settings: RsfSettings = SETTINGS,
    seed: int,
) -> Path:
    """Run the loop on a packaged policy; a run that was stopped goes on.

    Args:
        checkpoint: The policy to begin with.
        conversations: Their opening turns are the prompts.
        answers: Of the text, drawn by directions and mixed in.
        prompts: File of the prompts that it is measured on.
        work: Folder for everything on the way.
        settings: Of the loop.
        seed: Of what is drawn.

    Returns:
        The folder of the policy that came of it.
    """
    folder = loop_folder(work, settings)
    folder.mkdir(parents=True, exist_ok=True)
    openings = sorted({found.messages[0]["content"] for found in conversations})
    random.Random(seed).shuffle(openings)
    held_out = held_out_prompts(SteeringSetting(prompts=prompts, seed=seed))
    given = LoopInput(
        job_id="pocket-policy",
        settings=settings,
        seed=seed,
        prompts=_written(openings, work / "rsf-prompts.jsonl"),
        validation_prompts=_written(held_out, work / "rsf-held-out.jsonl"),
        sft=_conversations(answers, work / "rsf-text.jsonl", seed=seed),
        base=checkpoint,
        folder=folder,
    )
    outcome = asyncio.run(_run(given))
    out = work / "preferred"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(outcome.folder, out, ignore=shutil.ignore_patterns(*_PREPARED))
    return out


def loop_folder(work: Path, settings: RsfSettings = SETTINGS) -> Path:
    """Return the folder of the loop; other settings have another."""
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return work / f"rsf-{digest[:8]}"


def last_samples(work: Path, settings: RsfSettings = SETTINGS) -> list[SampleRow]:
    """Return what the policy answered in the loop's last two iterations, with rewards."""
    workspace = Workspace(loop_folder(work, settings))
    numbers = range(max(1, settings.iterations - 1), settings.iterations + 1)
    return [row for number in numbers for row in read_samples(workspace.iteration(number).samples)]


def _conversations(answers: Answers, path: Path, *, seed: int) -> Path:
    drawn = itertools.islice(draw_turns(answers, seed=seed + 1), _CONVERSATIONS)
    rows = ([*context, {"role": "assistant", "content": answer}] for context, answer in drawn)
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def _written(prompts: Sequence[str], path: Path) -> Path:
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    return path


async def _run(given: LoopInput) -> Outcome:
    config = ServeConfig(
        policy=[str(given.base)],
        policy_name=["pocket-policy"],
        max_running_completions=64,
        max_waiting_completions=1024,
    )
    engines = load_engines(config, Metrics())
    (policy,) = load_policies(config).values()
    (engine,) = engines.values()
    assert isinstance(policy, LocalPolicy)
    for model in (engine, policy):
        model.start()
    try:
        await asyncio.gather(engine.wait_until_ready(), policy.wait_until_ready())
        served = ServedPolicy(policy, name="preferred", start=None)
        trainer = ProcessTrainer(given.settings.training)
        ports = LoopPorts(served, ServedRewards(engine), trainer, served)
        return await RsfLoop(given, ports, _Printer()).run()
    finally:
        policy.close()
        engine.close()


class _Printer:
    """Prints what a loop tells."""

    def progress(self, progress: JobProgress) -> None:
        """Say nothing: events say enough."""

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Print what happened."""
        del level, type, data
        tqdm.write(message)

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        """Say nothing: there is an event for it."""
