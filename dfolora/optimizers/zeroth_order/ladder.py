"""The rate of an estimator, measured: a few lengths of its first step, from short to long."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dfolora.optimizers.base import Points

LENGTHS = (0.01, 0.032, 0.1, 0.32, 1.0, 3.2, 10.0)
"""Rungs: root mean square of what a coordinate moves by. The subspaces are scaled so that 1 is a large change."""
SHARE = 0.32
"""Of the best length, what the rate is set for: later steps meet smaller slopes, so that one is too long for them."""


class Ladder:
    """Lengths to try along one step, the shortest first, and what the loss says of each.

    The best is the last one up to which the loss falls from rung to rung: where a step is so long that it breaks the
    model, a low loss is luck, and never counts.

    Args:
        gradient: (d,), the estimate that the step goes along.
        unit: (d,), not all zero: the step at a rate of 1.
        population: P; a generation asks x itself and P - 1 rungs at most, each to be compared with x as it is then.
    """

    def __init__(self, gradient: Points, unit: Points, population: int) -> None:
        self.gradient = gradient
        largest = np.abs(unit).max()  # whose square may be too large, or too small, for a float
        self._length = float(largest * np.sqrt(np.square(unit / largest).mean()))
        self._direction = unit / self._length
        self._places = population - 1
        self._gains: list[float] = []

    def candidates(self, x: Points) -> Points:
        """(1 + K, d): x and the next rungs, K < P."""
        lengths = LENGTHS[len(self._gains) :][: self._places]
        return x + np.array([0.0, *lengths])[:, None] * self._direction

    def gains(self, losses: Points, finite: NDArray[np.bool_]) -> list[float]:
        """What every rung tried so far takes off the loss of x; minus infinity where it has no loss.

        Args:
            losses, finite: (1 + K,), of the last candidates, which are not counted until ``tell``.
        """
        last = np.where(finite[1:], losses[0] - losses[1:], -math.inf)
        return [*self._gains, *last.tolist()]

    def ends(self, gains: list[float]) -> bool:
        """Whether these gains are enough to choose: no rung is left, or the last one was too long."""
        return len(gains) == len(LENGTHS) or _highest(gains) < len(gains) - 1

    def rate(self, gains: list[float]) -> float | None:
        """The rate that these gains speak for; None: no rung is better than standing still."""
        best = _highest(gains)
        rate = SHARE * LENGTHS[best] / self._length
        return rate if gains[best] > 0 and 0 < rate < math.inf else None

    def tell(self, gains: list[float]) -> None:
        """Count the last candidates as tried."""
        self._gains = gains


def _highest(gains: list[float]) -> int:
    """The last rung up to which every one gains more than the one before."""
    rung = 0
    while rung + 1 < len(gains) and gains[rung + 1] > gains[rung]:
        rung += 1
    return rung
