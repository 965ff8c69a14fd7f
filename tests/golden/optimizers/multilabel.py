"""Multi-label reward regression (arXiv:2503.21819): squared errors of the labels that are there.

With M the pairs (n, k) of a response and a label that it has,

    L = (1/|M|) sum_{(n,k) in M} w_k (p_nk - l_nk)^2          dL/dp_nk = 2 w_k (p_nk - l_nk) / |M|

and 0 where a label is missing; 0 altogether where there is none. Weights: 1, given ones, or one
over the (population) variance of each label, which makes labels count alike.

Axis legend: N responses, K labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.golden.optimizers.document import Draws, Family, Floats, drawn

_RESPONSES, _LABELS = 8, 4


def loss(predicted_NK: Floats, labels_NK: Floats, weights_K: Floats) -> dict[str, Any]:
    """Return the loss, and its gradient by the predictions."""
    there = [(n, k) for n, k in np.ndindex(*labels_NK.shape) if not np.isnan(labels_NK[n, k])]
    total, gradient_NK = 0.0, np.zeros(labels_NK.shape)
    for n, k in there:
        error = predicted_NK[n, k] - labels_NK[n, k]
        total += weights_K[k] * error**2 / len(there)
        gradient_NK[n, k] = 2 * weights_K[k] * error / len(there)
    return {"loss": total, "gradient": gradient_NK}


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return predictions and labels on scales of their own, and the losses."""
    labels_NK = np.round(drawn(draws, _RESPONSES, _LABELS) * [1.0, 0.1, 10.0, 3.0] + 2.0, 4)
    if place >= 3:
        labels_NK[draws.random(labels_NK.shape) < 0.3] = np.nan
    if place == 8:
        labels_NK[0] = np.nan
    if place == 9:
        labels_NK[:] = np.nan
    inputs = {
        "predicted": np.round(np.nan_to_num(labels_NK) + drawn(draws, *labels_NK.shape), 3),
        "labels": labels_NK,
        "weights": np.round(draws.uniform(0.1, 2.0, _LABELS), 2),
    }
    every = {"plain": np.ones(_LABELS), "weighted": inputs["weights"]}
    if place != 9:
        columns = [column[~np.isnan(column)] for column in labels_NK.T]
        mean_squares = [((column - column.mean()) ** 2).mean() for column in columns]
        every["balanced"] = 1.0 / np.array(mean_squares)
    given = inputs["predicted"], labels_NK
    return {
        "inputs": inputs,
        "losses": {name: loss(*given, weights_K) for name, weights_K in every.items()},
    }


FAMILY = Family("multilabel", 2503, case)
