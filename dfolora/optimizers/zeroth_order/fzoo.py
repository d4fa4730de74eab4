"""FZOO: steps along a gradient estimate, divided by the spread of the losses."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dfolora.optimizers.base import Points
from dfolora.optimizers.zeroth_order.estimator import Estimator
from dfolora.optimizers.zeroth_order.gradient import estimate


class FZOO(Estimator):
    """FZOO (Dang et al., arXiv 2506.09034): one-sided Rademacher probes, the estimate divided by their losses' spread.

    Each generation asks x itself and N = population - 1 probes. The spread std(L_1..L_N) of the losses is sigma times
    the gradient's length but for curvature, so the step depends on the direction of the gradient and not on its size,
    and sigma cancels: normalised SGD. The paper's scale, as released: the mean over z of (L - L_0) z / std.

    Otherwise the estimate is divided by the spread of the slopes along the probes, std / sigma: with N orthogonal
    probes a step moves each coordinate by lr sqrt(N), root mean square, and lr is a length in the units of z.

    Args:
        dim, population, ..., plane_steps: as for every estimator, with sgd and rademacher unless others are named.

    Raises:
        UserError: an argument out of range; a spread takes two probes, so the least population is 3.
    """

    least_population = 3
    _noise_name: ClassVar[str] = "rademacher"
    _update_name: ClassVar[str] = "sgd"

    def _probes(self) -> Points:
        return np.concatenate([np.zeros((1, self.dim)), self._noise.draw(self._step, self.population - 1)])

    def _gradient(self, directions: Points, losses: Points) -> Points:
        z, differences = directions[1:] - directions[0], losses[1:] - losses[0]
        spread = losses[1:].std(ddof=1)
        if spread == 0:
            return np.full(self.dim, np.nan)
        if self.paper_scale:
            return estimate(z, differences, differences / (len(z) * spread), paper_scale=True)
        # Curvature lifts all probes alike above x. The published direction has that in it; the slope must not.
        slopes = (losses[1:] - losses[1:].mean()) / self.sigma
        return estimate(z, slopes, differences, paper_scale=False) * (self.sigma / spread)
