"""Losses of the multi-task backbone: pure functions on tensors.

Axis legend: N responses, P pairs, K objectives, R ratings, V vocabulary, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, softplus


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the mean of ``-log sigmoid(chosen - rejected)``; 0 without pairs."""
    if chosen.numel() == 0:
        return chosen.sum()
    return softplus(rejected - chosen).mean()


def calibrated_mse(
    rewards_NK: Tensor,
    *,
    response_R: Tensor,
    objective_R: Tensor,
    rater_R: Tensor,
    labels_R: Tensor,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """Return the squared error of ratings, each read on the scale of its own rater.

    Different sources rate one objective on scales of their own; a slope and an offset a rater
    (a source's attribute) take that up, so that the head itself stays one quantity.

    Args:
        rewards_NK: Head outputs.
        response_R: Response that each rating is of.
        objective_R: Objective it is about.
        rater_R: Who gave it, index into `slope` and `offset`.
        labels_R: Its value, standardised within its rater.
        slope: One a rater.
        offset: One a rater.
    """
    if labels_R.numel() == 0:
        return rewards_NK.sum() * 0.0
    predicted_R = rewards_NK[response_R, objective_R] * slope[rater_R] + offset[rater_R]
    return mse_loss(predicted_R, labels_R)


def next_token_loss(
    hidden_TH: Tensor, embedding_VH: Tensor, *, targets_T: Tensor, max_tokens: int
) -> Tensor:
    """Return the cross-entropy of the next token, with tied embeddings as output layer.

    Args:
        hidden_TH: Final hidden states.
        embedding_VH: Token embeddings.
        targets_T: Next token of each position, -100 where there is none to predict.
        max_tokens: At most so many positions, evenly spread, are predicted: the output layer of a
            small model costs as much as the model.
    """
    positions = torch.nonzero(targets_T >= 0).flatten()
    if positions.numel() == 0:
        return hidden_TH.sum() * 0.0
    step = max(1, -(-len(positions) // max_tokens))
    positions = positions[::step]
    logits = hidden_TH[positions] @ embedding_VH.T
    return cross_entropy(logits.float(), targets_T[positions])
