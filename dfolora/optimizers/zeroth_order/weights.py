"""A weight for each candidate of a pool, from their losses: (P,) -> (P,).

A direction is the sum of the candidates' directions times their weights. The centred and rank-shaped ones point uphill;
the guiding ones have no meaningful sign, since the slope along them is measured afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dfolora.optimizers.base import Points


def guiding(losses: Points, best_share: float) -> Points:
    """Mean of the best minus mean of the rest (MeZO-GV, arXiv 2601.04710, Algorithm 2; after GFWA's guiding spark).

    Args:
        losses: (P,), at least two; earlier candidates win ties.
        best_share: alpha, share of the best; floor(alpha P) of them, but one at least on either side.
    """
    count = len(losses)
    best = min(max(math.floor(best_share * count), 1), count - 1)
    weights = np.full(count, -1.0 / (count - best))
    weights[np.argsort(losses, kind="stable")[:best]] = 1.0 / best
    return weights


def greedy(losses: Points) -> Points:
    """The best candidate alone (MeZO-Greedy, arXiv 2601.04710)."""
    weights = np.zeros(len(losses))
    weights[np.argmin(losses)] = 1.0
    return weights


def centred(losses: Points) -> Points:
    """Losses minus their mean: an evolution strategy's estimate with the mean as its baseline."""
    return losses - losses.mean()


def ranks(losses: Points) -> Points:
    """Ranks from -1/2 (best) to 1/2 (worst), ties shared (Salimans et al., arXiv 1703.03864, fitness shaping)."""
    _, inverse, counts = np.unique(losses, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2  # mean of the places that equal losses share, from 0
    return (middle / (len(losses) - 1) - 0.5)[inverse]


SHAPES: dict[str, Callable[[Points], Points]] = {"centred": centred, "ranks": ranks}
