"""The first steps are slow: they are made before anyone waits for them."""

from __future__ import annotations

import random

from tokenizers import Tokenizer, models

from steerward.policy.local.cache import PagedCache
from steerward.policy.local.model import Weights, compute_step
from steerward.policy.local.sampling import Draw, draw_tokens
from steerward.policy.local.scheduler import Run, Step
from steerward.policy.local.sequence import Job, Sample, SharedPrompt
from steerward.policy.local.text import TextStream


def warm_up(weights: Weights, cache: PagedCache) -> None:
    """Read a prompt and draw some tokens; the blocks are overwritten by whoever gets them."""
    weights.activate()
    job = Job(weights)
    prompt = SharedPrompt(job, [0] * 8, [], [0])
    logits_RV = compute_step(weights, cache, Step([Run(prompt, 0, 8)]))
    draw = Draw(1.0, 0.9, 0.0, 0.0, 1, random.Random(0))
    text = TextStream(Tokenizer(models.BPE()), prompt=(), stop=())
    sample = Sample(job, 0, draw, text, 4, frozenset(), prompt_ids=prompt.ids, table=[0])
    for _ in range(3):
        sample.tokens += draw_tokens(logits_RV, [draw]).tokens
        logits_RV = compute_step(weights, cache, Step(samples=[sample]))
