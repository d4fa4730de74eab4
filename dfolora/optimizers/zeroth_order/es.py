"""Evolution strategy: a gradient estimated from random directions, weighted by their losses."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from dfolora.errors import unknown
from dfolora.optimizers.base import Points
from dfolora.optimizers.zeroth_order.estimator import Estimator
from dfolora.optimizers.zeroth_order.gradient import estimate, pairs
from dfolora.optimizers.zeroth_order.weights import SHAPES


class ES(Estimator):
    """An evolution strategy with a fixed isotropic Gaussian (Salimans et al., arXiv 1703.03864, Algorithm 1).

    The evaluations of MeZO-GV's pool, each weighted by its loss, and no others. To first order the direction keeps
    (P - 1) / d of the gradient's square, from P evaluations; SPSA keeps half of that, MeZO-GV with its two more about
    0.6 of it. The paper's scale: the sum of w z / (P sigma).

    Args:
        dim, population, ..., plane_steps: as for every estimator.
        weights: ``centred``, the losses minus their mean, or ``ranks`` from -1/2 to 1/2, for losses with outliers.
        antithetic: ask every direction from both sides, which cancels the curvature in the differences and halves the
            number of directions. With centred weights it is SPSA.

    Raises:
        UserError: an argument out of range or an unknown name.
    """

    def __init__(
        self,
        *arguments: Any,
        weights: Annotated[str, "es: centred (losses) or ranks", tuple(SHAPES)] = "centred",
        antithetic: Annotated[bool, "es: probe every direction from both sides"] = False,
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        if weights not in SHAPES:
            raise unknown("weights", weights, SHAPES)
        self._shape = SHAPES[weights]
        self._antithetic = antithetic

    def _probes(self) -> Points:
        if not self._antithetic:
            return self._noise.draw(self._step, self.population)
        z = self._noise.draw(self._step, self.population // 2)
        return np.stack([z, -z], axis=1).reshape(-1, self.dim)

    def _gradient(self, directions: Points, losses: Points) -> Points:
        weights = self._shape(losses) / (len(losses) * self.sigma)
        if self._antithetic:
            z, slopes = pairs(directions, losses, self.sigma)
            return estimate(z, slopes, weights[::2] - weights[1::2], self.paper_scale)
        # The weights sum to zero, so any constant could stand for the loss at x; the mean keeps the numbers small.
        return estimate(directions, (losses - losses.mean()) / self.sigma, weights, self.paper_scale)
