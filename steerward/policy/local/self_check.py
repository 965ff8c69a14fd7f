"""Before a model is served: steps over the cache must give what transformers' own pass gives."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedModel

from steerward.models.windows import max_positions, watched_windows
from steerward.policy.local.attention import PAGED_ATTENTION, WATCHED_ATTENTION
from steerward.policy.local.cache import BLOCK_TOKENS, CacheShape, PagedCache
from steerward.policy.local.model import Weights, compute_step
from steerward.policy.local.sampling import Draw
from steerward.policy.local.scheduler import Run, Step
from steerward.policy.local.sequence import Job, Sample, SharedPrompt
from steerward.policy.local.text import TextStream
from steerward.protocol.errors import CheckpointRefused

# How far the logits may lie apart, relative to the largest: rounding, far below any error.
_PARITY = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}
_SINGLE_TOKENS = 3


@torch.inference_mode()
def check_steps(model: PreTrainedModel) -> int:
    """Compare a walk over the cache with the plain forward pass; the model is then set for steps.

    Returns:
        The longest sequence that steps compute as the plain forward pass does.

    Raises:
        CheckpointRefused: If the logits differ, or the layers ask for what steps do not do.
    """
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    size = embedding.num_embeddings
    ids = [(7 + i * max(1, size // 64)) % size for i in range(BLOCK_TOKENS + 5)]
    model.set_attn_implementation("eager")
    expected = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    try:
        model.set_attn_implementation(WATCHED_ATTENTION)
        with watched_windows() as windows:
            _walk(model, ids)
        model.set_attn_implementation(PAGED_ATTENTION)
        found = _walk(model, ids)
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise _refused(model, str(error)) from error
    for position, logits_V in found.items():
        off = float((logits_V - expected[position]).abs().max() / expected[position].abs().max())
        if not off <= _PARITY[model.dtype]:
            raise _refused(model, f"logits of token {position} differ by {off:.2g}")
    return max_positions(model.config, windows)


def _walk(model: PreTrainedModel, ids: Sequence[int]) -> dict[int, Tensor]:
    """Return logits by position: a prompt in two runs, then single tokens."""
    weights = Weights(model, "self-check", len(ids))
    num_blocks = -(-len(ids) // BLOCK_TOKENS)
    shape = CacheShape.of(model.config, model.dtype)
    cache = PagedCache(shape, num_blocks=num_blocks, device=model.device)
    # In reverse, so that a block's place and a token's are not the same by chance.
    table = list(range(num_blocks - 1, -1, -1))
    job = Job(weights)
    prompt = SharedPrompt(job, list(ids[:-_SINGLE_TOKENS]), [], table)
    length = len(prompt.ids)
    compute_step(weights, cache, Step([Run(prompt, 0, length // 2)]))
    rest = Step([Run(prompt, length // 2, length)])
    found = {length - 1: compute_step(weights, cache, rest)[0]}
    sample = Sample(
        job,
        index=0,
        draw=Draw(0.0, 1.0, 0.0, 0.0, None, random.Random(0)),
        text=TextStream(Tokenizer(models.BPE()), prompt=(), stop=()),
        max_tokens=_SINGLE_TOKENS,
        end_tokens=frozenset(),
        prompt_ids=prompt.ids,
        table=table,
    )
    for token in ids[-_SINGLE_TOKENS:]:
        sample.tokens.append(token)
        found[sample.length - 1] = compute_step(weights, cache, Step(samples=[sample]))[0]
    return found


def _refused(model: PreTrainedModel, reason: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"a {model.config.model_type} policy cannot be decoded in continuous batches here: "
        f"{reason}; serve it with vLLM or SGLang and give its address as --policy http://..."
    )
