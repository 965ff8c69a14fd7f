"""Sixth step: the same answers behind two directions teach what a direction changes.

The best answers tell a policy what to say under a direction, and little of what else to say under
another. Here a prompt stands behind two directions, with the two of its samples about which these
disagree most: the policy learns to prefer the one to the other by more under the first direction
than under the second. That is MAPL's loss of inter rows (arXiv:2505.12845) with directions in the
place of instructions. Whatever makes an answer better under both directions cancels in it; for
that there are as many pairs of the best and the worst sample of a prompt.

Axis legend: N samples of a prompt, V directions, M objectives.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl.trainer.dpo_config import DPOConfig

from recipes.pocket_policy.directed import directions_and_systems
from recipes.pocket_policy.language import POSITIONS, last_checkpoint, save_whole
from recipes.pocket_policy.rule import RULE
from steerward.jobs.rsf.samples import SampleRow
from steerward.models.chat import ChatEncoder
from steerward.models.source import weight_version
from steerward.training.align.mapl.batch import SIDES, Encoder, encode_rows
from steerward.training.align.mapl.dpo_trainer import MaplDPOTrainer
from steerward.training.align.mapl.rows import InterRow, Turns
from steerward.training.align.rows import PairRow
from steerward.training.batch_order import in_batches_of_like_length
from steerward.training.conditioning import Floats, standardised

BETA = 0.15
"""Of DPO: higher ones hold the policy nearer to its start."""
LAMBDA = 2.0
"""How much rows of two directions count, against pairs under one."""
ROWS_PER_PROMPT = 2
"""Of each kind."""
_LEARNING_RATE = 1e-4
_ROWS_PER_STEP = 16
# In steps of the directions that training shows. Far ones alone would teach two ways to answer;
# from near ones it learns what lies between.
_APART = (6, 16)
# Repeats, empty samples and those that were cut teach nothing.
_COMPETED = ("best", "not_best")


def learn_contrasts(
    samples: Sequence[SampleRow],
    tokenizer: PreTrainedTokenizerFast,
    *,
    start: Path,
    work: Path,
    seed: int,
) -> Path:
    """Train on with rows of samples, once each; a run that was stopped goes on.

    Args:
        samples: Of the loop, with rewards.
        tokenizer: Of the policy.
        start: Folder of the weights to begin with, and that the policy is held near to.
        work: Folder for everything on the way.
        seed: Of what is drawn.

    Returns:
        The folder of the weights; other settings have another.
    """
    out = work / f"contrasted-{_digest(start, seed)}"
    if out.exists():
        return out
    set_seed(seed)
    model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    runs = out.with_name(f"{out.name}-runs")
    trainer = MaplDPOTrainer(
        lambda_intra=0.0,
        lambda_inter=LAMBDA,
        model=model,
        args=_settings(runs, seed=seed),
        train_dataset=_data_set(list(draw_contrasts(samples, seed=seed)), tokenizer, seed=seed),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    save_whole(model, out)
    return out


def _digest(start: Path, seed: int) -> str:
    settings = (BETA, LAMBDA, ROWS_PER_PROMPT, _LEARNING_RATE, _ROWS_PER_STEP, _APART)
    return hashlib.sha256(repr((weight_version(start), seed, *settings)).encode()).hexdigest()[:8]


def draw_contrasts(samples: Sequence[SampleRow], *, seed: int) -> Iterator[InterRow | PairRow]:
    """Yield rows of samples: of two directions, and pairs under one of them, by turns."""
    order = random.Random(seed)
    vectors, systems = directions_and_systems()
    for group in _groups(samples):
        rewards_NM = np.array([[one.rewards[name] for name in RULE.objectives] for one in group])
        if not (rewards_NM.std(axis=0) > 0).all():
            continue  # Equal samples tell nothing.
        scores_VN = vectors @ standardised(rewards_NM).T
        for _ in range(ROWS_PER_PROMPT):
            one, other = _two_directions(order, len(vectors))
            prompts = [_conditioned(group[0], systems[v]) for v in (one, other)]
            best, worst = _extremes(group, scores_VN[other] - scores_VN[one])
            yield InterRow(prompts[0], prompts[1], best, worst, direction=1, instructions=())
            best, worst = _extremes(group, scores_VN[one])
            yield PairRow(prompts[0], best, worst, columns={})


def _two_directions(order: random.Random, count: int) -> tuple[int, int]:
    """Return the places of two directions, each as likely as any other to be the first."""
    one, apart = order.randrange(count), order.randint(*_APART) * order.choice((-1, 1))
    return one, one + apart if 0 <= one + apart < count else one - apart


def _groups(samples: Sequence[SampleRow]) -> Iterator[list[SampleRow]]:
    """Yield the samples of each prompt that competed, where there are several."""
    groups: dict[tuple[int, int], list[SampleRow]] = {}
    for one in samples:
        if one.reason in _COMPETED:
            groups.setdefault((one.iteration, one.number), []).append(one)
    yield from (group for group in groups.values() if len(group) > 1)


def _extremes(group: Sequence[SampleRow], scores_N: Floats) -> tuple[str, str]:
    """Return the samples with the highest and the lowest score."""
    return group[int(scores_N.argmax())].completion, group[int(scores_N.argmin())].completion


def _conditioned(sample: SampleRow, system: str) -> Turns:
    return ({"role": "system", "content": system}, *map(dict, sample.prompt))


def _data_set(
    rows: Sequence[InterRow | PairRow], tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> Dataset:
    """Return rows as token ids, those of a step about as long as each other."""
    end: Any = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    encoder = Encoder(ChatEncoder(tokenizer), max_tokens=POSITIONS, end_tokens=[end])
    found = encode_rows(rows, encoder).dataset
    sides = [found[f"{side}_ids"] for side in SIDES]
    # Of the longest side, so that each batch has rows of both kinds, which count by their weights.
    lengths = [max(map(len, row)) for row in zip(*sides, strict=True)]
    places = in_batches_of_like_length(
        lengths, batch_size=_ROWS_PER_STEP, order=random.Random(seed)
    )
    return found.select(places)


def _settings(runs: Path, *, seed: int) -> DPOConfig:
    return DPOConfig(
        output_dir=str(runs),
        beta=BETA,
        learning_rate=_LEARNING_RATE,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        num_train_epochs=1,
        per_device_train_batch_size=_ROWS_PER_STEP,
        train_sampling_strategy="sequential",
        # Nothing is cut.
        max_length=None,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        activation_checkpointing=False,
        logging_steps=10,
        save_steps=50,
        save_total_limit=2,
        report_to=[],
        seed=seed,
    )
