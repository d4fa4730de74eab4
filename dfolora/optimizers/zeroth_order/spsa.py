"""Two-sided probes along random directions: SPSA, which is MeZO; and within a plane, which is SubZero."""

from __future__ import annotations

from functools import partial

import numpy as np

from dfolora.optimizers.base import Points
from dfolora.optimizers.zeroth_order.estimator import Estimator
from dfolora.optimizers.zeroth_order.gradient import estimate, pairs


class SPSA(Estimator):
    """q-SPSA (Spall 1992), the estimator of MeZO (Malladi et al., arXiv 2305.17333, Definition 1 and Algorithm 1).

    Each generation asks x + sigma z and x - sigma z for q = population // 2 directions z; an odd candidate out is not
    asked. The paper's scale: the mean over z of (L+ - L-) / (2 sigma) z.
    """

    def _probes(self) -> Points:
        z = self._noise.draw(self._step, self.population // 2)
        return np.stack([z, -z], axis=1).reshape(-1, self.dim)

    def _gradient(self, directions: Points, losses: Points) -> Points:
        z, slopes = pairs(directions, losses, self.sigma)
        return estimate(z, slopes, slopes / len(slopes), self.paper_scale)


subzero = partial(SPSA, noise="plane")
"""SPSA within a random plane that changes every few steps, after SubZero (arXiv 2410.08989)."""
