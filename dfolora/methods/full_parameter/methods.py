"""The papers' gradient estimators. Directions z are named and drawn anew, never stored.

Weights and lengths are those of ``dfolora.optimizers.zeroth_order``, by the same functions. Its directions are vectors;
here orthogonal vectors of unit mean square stand for the z of a step, which in d dimensions are that up to 1 / sqrt(d).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dfolora.optimizers.base import Points
from dfolora.optimizers.zeroth_order import weights
from dfolora.optimizers.zeroth_order.gradient import estimate, pairs

Probe = Callable[[dict[int, float]], float]
"""{k: w_k} -> the loss at x + eps v, v the sum of w_k z_k; NaN or infinite where there is none."""


@dataclass(frozen=True)
class Settings:
    """Settings of an estimator.

    Attributes:
        population: spsa: twice the number of directions; guided and greedy: the papers' M, size of the pool.
        eps: size of a probe, standard deviation of a weight's displacement.
        best_share: guided: share of the pool that counts as the best, alpha.
        paper_scale: keep the length that the papers give the estimate.
    """

    population: int
    eps: float
    best_share: float
    paper_scale: bool


@dataclass(frozen=True)
class Estimate:
    """One estimate of the gradient.

    Attributes:
        weights: the estimate as multiples of the z, {k: c_k}; empty where nothing can be said.
        slopes: projected gradients, the derivatives measured along the directions that were probed from both sides.
        losses: of all probes in the order in which they were asked.
    """

    weights: dict[int, float] = field(default_factory=dict)
    slopes: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def spsa(probe: Probe, settings: Settings) -> Estimate:
    """q-SPSA, MeZO (arXiv 2305.17333, Definition 1 and Algorithm 1): q = population // 2 directions from both sides.

    A direction with a loss that is not finite, on either side, is dropped.
    """
    count = settings.population // 2
    losses = np.array([probe({k: sign}) for k in range(count) for sign in (1.0, -1.0)])
    kept = np.flatnonzero(np.isfinite(losses.reshape(-1, 2)).all(1))
    if not len(kept):
        return Estimate(losses=losses.tolist())
    z = _basis(len(kept))
    both = np.stack([z, -z], axis=1).reshape(2 * len(kept), -1)
    with np.errstate(all="ignore"):  # losses of 1e300 make infinite estimates, which are not followed
        _, slopes = pairs(both, losses.reshape(-1, 2)[kept].ravel(), settings.eps)
        found = estimate(z, slopes, slopes / len(slopes), settings.paper_scale)
    return _checked(found, kept, slopes, losses)


def guided(probe: Probe, settings: Settings) -> Estimate:
    """MeZO-GV (arXiv 2601.04710, Algorithm 2): v is the mean of the best of M probes minus the mean of the rest.

    Probes with a loss that is not finite are dropped; with fewer than two left there is no direction.
    """
    return _pool(probe, settings, lambda losses: weights.guiding(losses, settings.best_share), least=2)


def greedy(probe: Probe, settings: Settings) -> Estimate:
    """MeZO-Greedy (arXiv 2601.04710): v is the best of M probes."""
    return _pool(probe, settings, weights.greedy, least=1)


METHODS: dict[str, Callable[[Probe, Settings], Estimate]] = {"spsa": spsa, "guided": guided, "greedy": greedy}


def _pool(probe: Probe, settings: Settings, weigh: Callable[[Points], Points], least: int) -> Estimate:
    pool = np.array([probe({k: 1.0}) for k in range(settings.population)])
    kept = np.flatnonzero(np.isfinite(pool))
    if len(kept) < least:
        return Estimate(losses=pool.tolist())
    shares = weigh(pool[kept])
    # The length of a probe, or in the papers' scale what the weights make it, as in the optimizers' ``Pool``.
    shares = shares if settings.paper_scale else shares / np.sqrt(np.square(shares).sum())
    v = {int(k): float(share) for k, share in zip(kept, shares, strict=True) if share}
    sides = np.array([probe({k: sign * share for k, share in v.items()}) for sign in (1.0, -1.0)])
    losses = np.concatenate([pool, sides])
    if not np.isfinite(sides).all():
        return Estimate(losses=losses.tolist())
    along = shares @ _basis(len(kept))
    with np.errstate(all="ignore"):
        _, slopes = pairs(np.stack([along, -along]), sides, settings.eps)
        found = estimate(along[None], slopes, slopes, settings.paper_scale)
    return _checked(found, kept, slopes, losses)


def _basis(count: int) -> Points:
    """(count, count): orthogonal vectors of unit mean square that stand for as many z."""
    return math.sqrt(count) * np.eye(count)


def _checked(found: Points, kept: NDArray[np.intp], slopes: Points, losses: Points) -> Estimate:
    """From coordinates in the basis to multiples of the z."""
    if not np.isfinite(found).all():
        return Estimate(losses=losses.tolist())
    multiples = found / math.sqrt(len(kept))
    own = {int(k): float(c) for k, c in zip(kept, multiples, strict=True) if c}
    return Estimate(own, slopes.tolist(), losses.tolist())
