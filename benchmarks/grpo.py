"""TRL's GRPO with a server's rewards: does the reward of held-out prompts rise?

    python -m benchmarks.grpo [--prompts FILE.jsonl.gz] [--out FILE.json] [--plot FILE.png]

Trains the policy in the package with TRL's own `GRPOTrainer` and the reward functions of
`steerward.clients.trl`, which ask a server of its own that serves `pocket`. The gated score is
trained on; all objectives are logged. Before, after, and every few steps the policy answers
prompts that training does not see, at temperature 1, and the server scores the answers. Several
seeds; intervals are 95 %, of the mean over seeds by resampling prompts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.command import main, table
from benchmarks.prompts import prompts_of
from benchmarks.served import Process
from steerward.clients import Client
from steerward.clients.trl import reward_funcs
from steerward.models.source import resolve_source

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained and measured."""

    prompts: str = ""
    """JSON lines with prompt, split and source; default: questions of our own."""
    sources: str = "self_dialogue,just_eval"
    policy: str = "pocket-policy"
    steps: int = 40
    seeds: int = 3
    prompts_per_step: int = 8
    generations: int = 8
    max_tokens: int = 64
    learning_rate: float = 3e-4
    held_out: int = 96
    measure_every: int = 10
    plot: str = ""


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return rewards of held-out prompts by step and seed, and what they show."""
    training, held_out = split_prompts(setting)
    command = [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu"]
    process = Process([*command, "--policy", "none"], variables={})
    try:
        found = [
            _train(setting, process.url, training, held_out, seed=seed, work=work / str(seed))
            for seed in range(setting.seeds)
        ]
    finally:
        process.stop()
    return summarise(found, setting)


def split_prompts(setting: Setting) -> tuple[list[str], list[str]]:
    """Return prompts to train on, and those held out."""
    return prompts_of(setting.prompts, sources=setting.sources, held_out=setting.held_out)


def _train(
    setting: Setting,
    url: str,
    training: Sequence[str],
    held_out: Sequence[str],
    *,
    seed: int,
    work: Path,
) -> list[dict[str, Any]]:
    """Train with one seed, and return what was measured: by step, a reward for each prompt."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    folder = resolve_source(setting.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    measured: list[dict[str, Any]] = []

    def measure(step: int) -> None:
        answers = draw_answers(model, tokenizer, held_out, setting)
        with Client(url) as client:
            scores = [
                client.score(prompt, [answer]).items[0].candidates[0]
                for prompt, answer in zip(held_out, answers, strict=True)
            ]
        measured.append(
            {
                "step": step,
                "scores": [one.score for one in scores],
                "characters": float(np.mean([len(answer) for answer in answers])),
            }
        )
        print(f"seed {seed}, step {step}: {np.mean(measured[-1]['scores']):.3f}", file=sys.stderr)

    class Measure(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            if state.global_step % setting.measure_every == 0:
                measure(state.global_step)

    functions = reward_funcs(url)
    prompts = [[{"role": "user", "content": prompt}] for prompt in training]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=functions,
        args=GRPOConfig(
            output_dir=str(work),
            max_steps=setting.steps,
            per_device_train_batch_size=setting.prompts_per_step * setting.generations,
            num_generations=setting.generations,
            max_completion_length=setting.max_tokens,
            learning_rate=setting.learning_rate,
            lr_scheduler_type="constant",
            # The objectives are logged; the score alone is trained on.
            reward_weights=[1.0] + [0.0] * (len(functions) - 1),
            temperature=1.0,
            beta=0.0,
            seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}).shuffle(seed=seed),
        processing_class=tokenizer,
        callbacks=[Measure()],
    )
    measure(0)
    trainer.train()
    columns = {key for entry in trainer.state.log_history for key in entry}
    measured[-1]["columns"] = sorted(key for key in columns if key.startswith("rewards/"))
    return measured


@torch.no_grad()
def draw_answers(model: Any, tokenizer: Any, prompts: Sequence[str], setting: Setting) -> list[str]:
    """Return an answer to each prompt, drawn with the same seed each time."""
    was_training = model.training
    model.eval()
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ids = model.generate(
            **inputs, do_sample=True, temperature=1.0, top_p=1.0, max_new_tokens=setting.max_tokens
        )
    model.train(was_training)
    answers = tokenizer.batch_decode(
        ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    # The server refuses to score nothing at all.
    return [answer if answer.strip() else "." for answer in answers]


def summarise(found: Sequence[Sequence[dict[str, Any]]], setting: Setting) -> dict[str, Any]:
    """Return rewards by step with intervals, and the gain of each seed and of all."""
    numbers = np.random.default_rng(0)
    scores = np.array([[one["scores"] for one in steps] for steps in found])
    resamples = numbers.integers(0, scores.shape[-1], (_RESAMPLES, scores.shape[-1]))
    steps = [one["step"] for one in found[0]]
    points = [
        {
            "step": step,
            **_interval(scores[:, place].mean(axis=0), resamples),
            "by_seed": scores[:, place].mean(axis=-1).tolist(),
            "characters": float(np.mean([one[place]["characters"] for one in found])),
        }
        for place, step in enumerate(steps)
    ]
    gains = scores[:, -1] - scores[:, 0]
    shown = {
        "points": points,
        "gain": _interval(gains.mean(axis=0), resamples),
        "gain_by_seed": [_interval(gain, resamples) for gain in gains],
        "columns": found[0][-1]["columns"],
    }
    if setting.plot:
        _draw(points, Path(setting.plot))
    return {**shown, "num_prompts": scores.shape[-1], "tables": _tables(shown)}


def _interval(values: Any, resamples: Any) -> dict[str, float]:
    low, high = np.quantile(values[resamples].mean(axis=1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _told(value: dict[str, Any]) -> str:
    return f"{value['mean']:+.3f} ({value['low']:+.3f}..{value['high']:+.3f})"


def _tables(shown: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        [
            str(point["step"]),
            _told(point),
            *(f"{mean:+.3f}" for mean in point["by_seed"]),
            f"{point['characters']:.0f}",
        ]
        for point in shown["points"]
    ]
    seeds = [f"seed {seed}" for seed in range(len(shown["gain_by_seed"]))]
    return [
        table("score of held-out prompts", ["step", "mean", *seeds, "characters"], rows),
        table(
            "gain from the first to the last",
            ["", "gain"],
            [
                *(
                    [seed, _told(gain)]
                    for seed, gain in zip(seeds, shown["gain_by_seed"], strict=True)
                ),
                ["all", _told(shown["gain"])],
            ],
        ),
    ]


def _draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    steps = [point["step"] for point in points]
    for seed in range(len(points[0]["by_seed"])):
        axes.plot(
            steps, [point["by_seed"][seed] for point in points], alpha=0.4, label=f"seed {seed}"
        )
    means = [point["mean"] for point in points]
    bars = [
        [point["mean"] - point["low"] for point in points],
        [point["high"] - point["mean"] for point in points],
    ]
    axes.errorbar(steps, means, yerr=bars, color="black", marker="o", label="mean, 95 %")
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("score of held-out prompts")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(Setting, run)
