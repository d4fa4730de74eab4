"""The fireworks algorithm: sparks around a few fireworks, and one guiding spark that follows the better ones.

Written from three papers of the Tan lab: the loser-out tournament (LoTFWA: Li & Tan, "Loser-Out Tournament-Based
Fireworks Algorithm for Multimodal Function Optimization", IEEE TEVC 2018), the guiding spark (GFWA: Li, Zheng & Tan,
"The Effect of Information Utilization: Introducing a Novel Guiding Spark in the Fireworks Algorithm", IEEE TEVC 2017)
and the bare bones algorithm (BBFWA: Li & Tan, Applied Soft Computing 2018).

What few candidates, no bounds and a moving objective changed, with what was measured (20 candidates a generation, 150
generations, medians over seeds; sphere, ellipsoid, Rastrigin, Rosenbrock with shifted optima):

* The published amplitude comes from the width of the bounded space. Here it is sqrt(3) sigma, which makes the
  standard deviation of U(-A, A) equal sigma. In large d such a spark is all but a Gaussian step of the same length.
* A guiding spark needs the losses of its own generation, so it is asked one generation later, at the place the papers
  give it: where the firework was then, plus the difference. No evaluation is spent in waiting.
* Every firework is evaluated again in each generation, one candidate each. Between two visits of a layer the others
  have moved, and an old loss that cannot be reached any more would stop the search: with an offset of std 0.2 on the
  losses of a generation, the sphere in d = 20 ended at 4e-5 with re-evaluation and at 1e-1 without. With a still
  objective it costs nothing that could be seen.
* One firework for every 50 candidates, at least one. With 20 candidates and d = 500, a single one ended the sphere at
  17.5 (from 42.4), two at 26, three at 30, five at 32; in d = 20 only Rastrigin gained from more. With 100 candidates
  two were as good as one. Papers give five fireworks 300 sparks.
* A loser restarts around the best firework at the first amplitude; in a bounded space it restarts anywhere, as
  published. Far from zero there is rarely anything to find in the subspace of a trained model.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from dfolora.errors import UserError
from dfolora.optimizers.base import Optimizer, Points

_GROW, _SHRINK = 1.2, 0.9  # BBFWA, LoTFWA: amplitude after an improvement, after none
_FRACTION = 0.2  # GFWA: the share of sparks on either side of the guiding difference
_FLOOR = 1e-6  # of the first amplitude: below that, sparks differ from their firework by rounding only
_HORIZON = 100  # generations that a firework is given to catch up where the run's length is not known
_POSITION, _GUIDING, _SPARK = range(3)


class Fireworks(Optimizer):
    """Fireworks with guiding sparks and a loser-out tournament; the incumbent is the best firework.

    Each generation asks, for every firework, its own position, its guiding spark and an equal share of the remaining
    candidates as explosion sparks. The first generation holds zero: the start is a candidate like any other.

    Args:
        dim, population, sigma, seed, generations, bound: as for every optimizer. ``generations`` sets the end that
            the tournament plans for; without it a firework is always given 100 more generations to catch up.
        fireworks: their number; None takes one for every 50 candidates, at least one.
        reevaluate: measure the fireworks' positions again in every generation. Off, a firework keeps the loss that it
            once had; only for an objective that never changes.

    Raises:
        UserError: an argument out of range; a firework takes at least 4 candidates.
    """

    least_population = 4

    def __init__(
        self,
        *arguments: Any,
        fireworks: Annotated[int | None, "fireworks: their number; nothing: one for every 50 candidates"] = None,
        reevaluate: Annotated[bool, "fireworks: measure their positions again in every generation"] = True,
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        count = max(1, self.population // 50) if fireworks is None else fireworks
        most = self.population // self.least_population
        if not 1 <= count <= most:
            raise UserError(f"fireworks: {count} does not fit a population of {self.population}; it takes 1 to {most}")
        self._reevaluate = reevaluate
        self._first_amplitude = math.sqrt(3.0) * self.sigma
        self._generation = 0
        self._positions = np.zeros((count, self.dim))
        self._losses = np.full(count, math.inf)
        self._amplitudes = np.full(count, self._first_amplitude)
        self._guiding: list[Points | None] = [None] * count
        self._owners = np.zeros(0, dtype=int)
        self._roles = np.zeros(0, dtype=int)
        for i in range(1, count):
            self._restart(i, around=self._positions[0])

    def _ask(self) -> Points:
        count = len(self._positions)
        rows: list[Points] = []
        tags: list[tuple[int, int]] = []
        for i in range(count):
            if self._reevaluate or math.isinf(self._losses[i]):
                rows.append(self._positions[i])
                tags.append((i, _POSITION))
        for i, guiding in enumerate(self._guiding):
            if guiding is not None:
                rows.append(guiding)
                tags.append((i, _GUIDING))
        owners = np.arange(self.population - len(rows)) % count
        # LoTFWA, explosion: firework + A_i U(-1, 1), each coordinate on its own.
        spread = self.rng.uniform(-1.0, 1.0, (len(owners), self.dim))
        sparks = self._inside(self._positions[owners] + self._amplitudes[owners, None] * spread)
        self._owners = np.concatenate([np.array([i for i, _ in tags], dtype=int), owners])
        self._roles = np.concatenate([np.array([role for _, role in tags], dtype=int), np.full(len(owners), _SPARK)])
        return np.concatenate([np.array(rows).reshape(-1, self.dim), sparks])

    def _tell(self, points: Points, losses: Points) -> None:
        self._generation += 1
        gains = np.zeros(len(self._positions))
        for i in range(len(self._positions)):
            rows = np.flatnonzero(self._owners == i)
            roles = self._roles[rows]
            if (roles == _POSITION).any():
                self._losses[i] = losses[rows[roles == _POSITION][0]]
            self._guide(i, points[rows[roles == _SPARK]], losses[rows[roles == _SPARK]])
            best = rows[np.argmin(losses[rows])]
            gains[i] = max(0.0, self._losses[i] - losses[best])
            if gains[i] > 0:
                self._positions[i], self._losses[i] = points[best], losses[best]
            rate = _GROW if gains[i] > 0 else _SHRINK
            self._amplitudes[i] = max(rate * self._amplitudes[i], _FLOOR * self._first_amplitude)
        self._lose_out(gains)

    def _guide(self, i: int, sparks: Points, losses: Points) -> None:
        """GFWA, guiding spark: firework + (mean of the best sparks - mean of the worst), before it moves."""
        order = np.argsort(losses, kind="stable")
        count = math.ceil(_FRACTION * len(order))
        step = sparks[order[:count]].mean(0) - sparks[order[-count:]].mean(0)
        self._guiding[i] = self._inside((self._positions[i] + step)[None])[0]

    def _lose_out(self, gains: Points) -> None:
        """LoTFWA, tournament: who at the present pace would not reach the best firework in time starts again."""
        best = int(np.argmin(self._losses))
        left = _HORIZON if self.generations is None else max(1, self.generations - self._generation)
        for i in range(len(self._positions)):
            if gains[i] * left < self._losses[i] - self._losses[best]:
                self._restart(i, around=self._positions[best])

    def _restart(self, i: int, around: Points) -> None:
        if self.bound is None:
            self._positions[i] = around + self.sigma * self.rng.standard_normal(self.dim)
        else:
            self._positions[i] = self.rng.uniform(-self.bound, self.bound, self.dim)
        self._losses[i] = math.inf
        self._amplitudes[i] = self._first_amplitude
        self._guiding[i] = None

    def extra_spark(self) -> Points:
        """One more explosion spark of the best firework, (d,), for a caller who cannot wait for the generation."""
        best = int(np.argmin(self._losses))
        spread = self.rng.uniform(-1.0, 1.0, (1, self.dim))
        return self._inside(self._positions[best] + self._amplitudes[best] * spread)[0]

    def _incumbent(self) -> Points:
        return self._positions[np.argmin(self._losses)].copy()
