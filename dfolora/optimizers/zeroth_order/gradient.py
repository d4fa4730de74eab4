"""From probed directions and the slopes measured along them to one estimate of the gradient."""

from __future__ import annotations

import numpy as np

from dfolora.optimizers.base import Points


def estimate(directions: Points, slopes: Points, weights: Points, paper_scale: bool) -> Points:
    """The gradient, as far as one direction tells.

    The direction is v = sum_k w_k z_k. The slope of the loss along it needs no further evaluation, it is
    s = sum_k w_k s_k, and the estimate is s v / mean(v^2): with u, v at unit mean square like a probe's noise, it is
    the slope along u times u. But for the error of the slopes that is d times the gradient's projection on the line
    of v, however many probes there were, however long, and however they were weighted.

    Args:
        directions: (K, d), z_k.
        slopes: (K,), s_k: derivatives of the loss along them, per length of z_k.
        weights: (K,), w_k.
        paper_scale: v itself, which is what the papers step along: the weights then decide the length.

    Returns:
        (d,).
    """
    # Runs are replayed: einsum, unlike a product by BLAS, adds in the same order however many threads there are.
    direction = np.einsum("k,kd->d", weights, directions)
    if paper_scale:
        return direction
    square = np.square(direction).mean()
    return direction * ((weights * slopes).sum() / square) if square > 0 else np.zeros_like(direction)


def pairs(directions: Points, losses: Points, sigma: float) -> tuple[Points, Points]:
    """Central differences of candidates asked two by two, the second of each pair opposite the first.

    Args:
        directions: (2K, d), what was really evaluated, as (candidate - x) / sigma.
        losses: (2K,).
        sigma: probe size.

    Returns:
        (K, d) and (K,): directions and slopes along them.
    """
    # Half the distance of the two, not the direction that was drawn: a bound may have cut one of them short.
    return (directions[::2] - directions[1::2]) / 2, (losses[::2] - losses[1::2]) / (2 * sigma)
