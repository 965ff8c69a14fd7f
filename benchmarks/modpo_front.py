"""MODPO on two objectives that conflict: does a sweep over weights trace the front between them?

    python -m benchmarks.modpo_front [--prompts FILE.jsonl.gz] [--out FILE.json] [--plot FILE.png]

The policy in the package answers training prompts several times; the reward model in it, `pocket`,
scores the answers, and pairs of them are preferred by one objective or the other. DPO on the second
objective's pairs gives the margins (its implicit rewards, as in the paper); then MODPO trains on
the first objective's pairs with each weight, as `steerward align modpo --sweep` does. The ends of
the front are DPO on each, by TRL's own trainer: at a weight of 1 it must be the same as MODPO,
number by number, and that is checked. Before and after each training the policy answers held-out
prompts. Rewards are told in standard deviations of the reward model's reference; several seeds;
intervals are 95 %, of the mean over seeds by resampling prompts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl.trainer.dpo_trainer import DPOTrainer

from benchmarks.command import main
from benchmarks.modpo_front_tables import summarise
from benchmarks.modpo_pairs import (
    ExplicitRewards,
    Objective,
    answers_of,
    correlations,
    most_conflicting,
    pairs_of,
    rewards_of,
    rows_of,
)
from benchmarks.prompts import prompts_of
from steerward.models.checkpoint import load_reward_model
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.alignment import ModpoSettings
from steerward.protocol.rsf import LoraSettings
from steerward.training.align.modpo.reference_trainer import padded_tokenizer
from steerward.training.align.modpo.trainer import modpo_config
from steerward.training.align.run import AlignRun, align
from steerward.training.align.run_folder import read_run
from steerward.training.sft_policy import lora_config


@dataclass(frozen=True, slots=True)
class Setting:
    """What is trained and measured."""

    prompts: str = ""
    """JSON lines with prompt, split and source; default: questions of our own."""
    sources: str = "self_dialogue,just_eval"
    policy: str = "pocket-policy"
    reward_model: str = "pocket"
    first: str = "helpfulness"
    """Objective of the pairs; a minus before it means that less is better."""
    second: str = "-verbosity"
    """Objective of the margins; "auto" takes the one that conflicts most with the first."""
    margins: str = "implicit"
    """Of the DPO policy of the second objective; or "explicit", of the reward model itself."""
    weights: str = "0.1,0.3,0.5,0.7,0.9"
    """Of the first objective; the second has the rest."""
    training_prompts: int = 64
    samples: int = 8
    pairs_per_prompt: int = 6
    held_out: int = 96
    max_tokens: int = 64
    seeds: int = 3
    steps: int = 30
    batch_size: int = 16
    beta: float = 0.1
    learning_rate: float = 4e-3
    lora_rank: int = 16
    plot: str = ""


def run(setting: Setting, work: Path) -> dict[str, Any]:
    """Return the front with intervals, and how the endpoints compare."""
    found = [Seed(setting, work / str(seed), seed=seed).measure() for seed in range(setting.seeds)]
    return summarise(found, plot=setting.plot)


class Seed:
    """Everything that one seed draws: samples, pairs, adapters, order."""

    def __init__(self, setting: Setting, work: Path, *, seed: int) -> None:
        self._setting, self._work, self._seed = setting, work, seed
        self._policy = resolve_source(setting.policy)
        self._version = weight_version(self._policy)
        self._tokenizer: Any = padded_tokenizer(self._policy)
        self._reward_model = load_reward_model(setting.reward_model, device="cpu")
        self._training, self._held_out = prompts_of(
            setting.prompts,
            sources=setting.sources,
            training=setting.training_prompts,
            held_out=setting.held_out,
        )
        self._first = Objective(setting.first)
        self._second = Objective(setting.second)

    def measure(self) -> dict[str, Any]:
        """Train both ends and everything between; return rewards of held-out prompts by way."""
        pairs, conflict = self._pairs()
        first, second = pairs
        rows = {
            told: rows_of(data, self._setting.steps * self._setting.batch_size, seed=self._seed)
            for told, data in pairs.items()
        }
        start = self._evaluate(self._model())
        ends = {
            told: self._dpo(data, self._work / f"dpo{place}")
            for place, (told, data) in enumerate(rows.items())
        }
        weights = [*map(float, self._setting.weights.split(",")), 1.0]
        folders = self._sweep(weights, rows[first], second=second, adapter=ends[second])
        return {
            "objectives": [first, second],
            "correlations": conflict,
            "pairs": {told: len(data) for told, data in pairs.items()},
            "points": {
                "start": start,
                f"DPO {second}": self._measured(ends[second]),
                **{way: self._measured(run / "policy") for way, run in folders.items()},
                f"DPO {first}": self._measured(ends[first]),
            },
            "terms": {way: _terms(run) for way, run in folders.items()},
            "endpoint_difference": _difference(ends[first], folders["w=1"] / "policy"),
        }

    def _pairs(self) -> tuple[dict[str, Dataset], dict[str, float]]:
        """Return pairs by objective, and how the others go with the first."""
        setting = self._setting
        prompts = [prompt for prompt in self._training for _ in range(setting.samples)]
        model = self._model()
        answers = answers_of(
            model, self._tokenizer, prompts, max_tokens=setting.max_tokens, seed=self._seed
        )
        rewards = rewards_of(self._reward_model, prompts, answers)
        conflict = correlations(rewards, self._first, group=setting.samples)
        if setting.second == "auto":
            self._second = most_conflicting(conflict)
        found = {
            one.told: pairs_of(
                prompts,
                answers,
                one.sign * rewards[one.name],
                group=setting.samples,
                num=setting.pairs_per_prompt,
                seed=self._seed,
            )
            for one in (self._first, self._second)
        }
        return found, conflict

    def _dpo(self, pairs: Dataset, folder: Path) -> Path:
        """Train with TRL's own trainer; return the adapter's folder."""
        trainer = DPOTrainer(
            model=self._model(),
            args=modpo_config(folder / "checkpoints", self._dpo_settings()),
            train_dataset=pairs,
            processing_class=self._tokenizer,
            peft_config=lora_config(self._lora()),
        )
        trainer.train()
        model: Any = trainer.model
        model.save_pretrained(str(folder / "policy"))
        return folder / "policy"

    def _sweep(
        self, weights: Sequence[float], pairs: Dataset, *, second: str, adapter: Path
    ) -> dict[str, Path]:
        """Train with each weight of the first objective; return the folders of the runs by way."""
        out = self._work / "modpo"
        out.mkdir(parents=True, exist_ok=True)
        rows = out / "pairs.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in pairs))
        settings, is_implicit = self._settings(second), self._setting.margins == "implicit"
        source = ExplicitRewards(self._rewards, self._reward_model.weight_version)
        found: dict[str, Path] = {}
        for weight in weights:
            run = AlignRun(
                settings=settings.swept(weight),
                base=self._policy,
                rows=rows,
                out=out / f"w{weight:g}",
                cache=out,
                margin_adapters={second: adapter} if is_implicit else {},
            )
            align(run, source)
            self._check_policy()
            found[f"w={weight:g}"] = run.out
        return found

    def _measured(self, adapter: Path) -> dict[str, Any]:
        """Return what the policy with an adapter is worth."""
        return self._evaluate(PeftModel.from_pretrained(self._model(), adapter).eval())

    def _evaluate(self, model: Any) -> dict[str, Any]:
        setting = self._setting
        # The same draws for all, so that differences are those of the weights.
        answers = answers_of(
            model, self._tokenizer, self._held_out, max_tokens=setting.max_tokens, seed=0
        )
        found = self._rewards(self._held_out, answers)
        told = ", ".join(f"{name} {np.mean(values):+.3f}" for name, values in found.items())
        print(f"seed {self._seed}: {told}", file=sys.stderr)
        return {"rewards": found, "characters": [len(answer) for answer in answers]}

    def _rewards(self, prompts: list[str], answers: list[str]) -> dict[str, list[float]]:
        rewards = rewards_of(self._reward_model, prompts, answers)
        both = self._first, self._second
        return {one.told: (one.sign * rewards[one.name]).tolist() for one in both}

    def _model(self) -> Any:
        self._check_policy()
        return AutoModelForCausalLM.from_pretrained(self._policy, dtype=torch.float32).eval()

    def _check_policy(self) -> None:
        if weight_version(self._policy) != self._version:
            raise SystemExit(f"{self._policy} has changed; its trainings did not begin alike")

    def _lora(self) -> LoraSettings:
        rank = self._setting.lora_rank
        return LoraSettings(rank=rank, alpha=2.0 * rank)

    def _settings(self, second: str) -> ModpoSettings:
        """Return the settings of the runs; each has its weight besides."""
        setting = self._setting
        return ModpoSettings(
            margins={second: 1.0},
            beta=setting.beta,
            batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            schedule="cosine",
            method="lora",
            lora=self._lora(),
            seed=self._seed,
            # All are measured at the end, with the same draws.
            evaluation_prompts=0,
        )

    def _dpo_settings(self) -> dict[str, Any]:
        """Return the same for TRL's own trainer."""
        setting = self._setting
        return {
            "beta": setting.beta,
            "num_train_epochs": 1,
            "per_device_train_batch_size": setting.batch_size,
            "learning_rate": setting.learning_rate,
            "lr_scheduler_type": "cosine",
            "seed": self._seed,
            "max_length": None,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "activation_checkpointing": False,
        }


def _terms(folder: Path) -> dict[str, float]:
    """Return how large both terms of the logit were on average."""
    logged = [line.metrics for line in read_run(folder).log]
    return {
        # None, a number that was not finite, becomes NaN, and so does the mean.
        name: float(np.array([metrics[name] for metrics in logged], dtype=float).mean())
        for name in ("modpo/implicit", "modpo/margin")
    }


def _difference(one: Path, other: Path) -> float:
    """Return the largest difference of two adapters' numbers."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


if __name__ == "__main__":
    main(Setting, run)
