"""How sure a difference is: paired bootstrap over examples and seeds, and what a test set can show at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

REPETITIONS = 10_000
LEVEL, POWER = 0.05, 0.8
Array = Any
"""A numpy array; the shape stands beside it."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, and how it might have come out otherwise.

    Attributes:
        value: the mean over seeds of the mean over examples.
        draws: (REPETITIONS,) float64, the same of resampled seeds and examples.
        detectable: the smallest difference that so many examples show at 5 % in 80 of 100 cases, seeds aside; 0 where
            all examples agree.
    """

    value: float
    draws: Array
    detectable: float

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of the draws."""
        low, high = np.quantile(self.draws, [LEVEL / 2, 1 - LEVEL / 2])
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Two-sided p-value: twice the share of draws on the other side of 0, at most 1."""
        other = min(int((self.draws <= 0).sum()), int((self.draws >= 0).sum()))
        return min(1.0, 2 * (other + 1) / (len(self.draws) + 1))


def estimate(values: Sequence[Array], shared: bool, seed: int = 0) -> Estimate:
    """Bootstrap the mean of values over examples within seeds, and over seeds.

    Where the seeds share one test set, an example drawn is drawn for all of them: its difficulty is theirs in common.
    Otherwise every seed's examples are drawn by themselves. What sets the seeds apart beyond the chance of their
    examples is drawn besides; its spread is estimated without bias, since few seeds differ by too little among
    themselves (a third of the variance is missing with three) and by too much where their examples are few.

    Args:
        values: for each of S seeds, (N,) of its examples: right or wrong, or the difference between two methods.
        shared: the seeds have the same test set, in the same order.
        seed: of the draws.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8, 13 and 16; the components of variance
        are those of Searle, Casella and McCulloch, Variance Components (1992), chapter 3.
    """
    rows = [np.asarray(each, dtype=np.float64) for each in values]
    rng = np.random.default_rng(seed)
    count = len(rows)
    means = np.array([row.mean() for row in rows])
    value = float(means.mean())
    if shared:
        matrix = np.stack(rows)
        common = matrix.mean(0)  # (N,)
        draws = _means(common, rng)
        null = np.square(common).mean() / len(common)
        noise = (matrix - common).var(1).mean() / len(common) * count / max(1, count - 1)
    else:
        draws = np.mean([_means(row, rng) for row in rows], axis=0)
        null = sum(np.square(row).mean() / len(row) for row in rows) / count**2
        noise = np.mean([row.var() / len(row) for row in rows])
    if count > 1 and (found := means.var()) > 0:
        between = max(0.0, found * count / (count - 1) - noise)
        chosen = rng.integers(count, size=(REPETITIONS, count))
        draws = draws + ((means - value) * math.sqrt(between / found))[chosen].mean(1)
    return Estimate(value, draws, smallest(math.sqrt(null)))


def _means(row: Array, rng: Any) -> Array:
    """(REPETITIONS,) means of N values that are drawn out of (N,) with replacement."""
    size = len(row)
    kinds, counts = np.unique(row, return_counts=True)
    if len(kinds) <= 64:  # how often each value was drawn says all
        return rng.multinomial(size, counts / size, size=REPETITIONS) @ kinds / size
    step = max(1, 2_000_000 // size)  # draws at a time, so that memory stays small
    parts = [min(step, REPETITIONS - start) for start in range(0, REPETITIONS, step)]
    return np.concatenate([row[rng.integers(size, size=(part, size))].mean(1) for part in parts])


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates of several tasks; the tasks are these, not a sample of others."""
    draws = np.mean([each.draws for each in estimates], axis=0)
    error = math.sqrt(sum(each.detectable**2 for each in estimates)) / len(estimates)
    return Estimate(float(np.mean([each.value for each in estimates])), draws, error)


def smallest(error: float) -> float:
    """The smallest true difference that is found significant at 5 % in 80 of 100 cases.

    Args:
        error: standard error of the difference. Two methods that differ in a share s of N examples have sqrt(s / N).
    """
    return float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * error


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter where there is one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
