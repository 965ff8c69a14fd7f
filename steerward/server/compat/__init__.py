"""Routes that speak the protocols of trainers and of other servers: one module each."""

from __future__ import annotations

from steerward.server.compat import (
    classify,
    embeddings,
    llama_factory,
    nemo_gym,
    nim_chat,
    openrlhf,
    pair_score,
    pooling,
    predict,
    rerank,
    slime,
)

routers = (
    openrlhf.router,
    llama_factory.router,
    slime.router,
    nemo_gym.router,
    classify.router,
    embeddings.router,
    pooling.router,
    pair_score.router,
    predict.router,
    rerank.router,
    nim_chat.router,
)
"""One of each protocol."""
