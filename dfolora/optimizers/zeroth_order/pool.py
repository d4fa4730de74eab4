"""One direction made of a pool of one-sided probes, then probed from both sides: MeZO-GV and MeZO-Greedy."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

import numpy as np

from dfolora.errors import UserError
from dfolora.optimizers.base import Points
from dfolora.optimizers.zeroth_order import weights
from dfolora.optimizers.zeroth_order.estimator import Estimator
from dfolora.optimizers.zeroth_order.gradient import estimate, pairs


class Pool(Estimator):
    """A step of two generations: M = population probes x + sigma z, then x + sigma v and x - sigma v.

    Subclasses say how the pool's losses make v of the z. Its length is that of a probe; in the paper's scale it is
    what the weights make it. Between the two generations x, and so the incumbent, stays where it is.
    """

    _chosen: tuple[int, Points] | None = None  # the step that it belongs to and its v

    @property
    def begins(self) -> bool:
        return super().begins and self._direction() is None  # a direction is probed on the examples that chose it

    def _direction(self) -> Points | None:
        """v, if this step has got as far as that."""
        return self._chosen[1] if self._chosen is not None and self._chosen[0] == self._step else None

    def _probes(self) -> Points:
        v = self._direction()
        return self._noise.draw(self._step, self.population) if v is None else np.stack([v, -v])

    def _gradient(self, directions: Points, losses: Points) -> Points | None:
        if self._direction() is None:
            shares = self._weights(losses)
            # The z are all but orthogonal and of one length, so v has the length of one of them times that of w.
            length = 1.0 if self.paper_scale else np.sqrt(np.square(shares).sum())
            self._chosen = self._step, np.einsum("k,kd->d", shares / length, directions)
            return None
        v, slopes = pairs(directions, losses, self.sigma)
        return estimate(v, slopes, slopes, self.paper_scale)

    @abstractmethod
    def _weights(self, losses: Points) -> Points:
        """(M,) to (M,): the share of each probe in v."""


class Guided(Pool):
    """MeZO-GV (arXiv 2601.04710, Algorithm 2): v is the mean of the best probes minus the mean of the rest.

    With ``noise="plane"`` it is the paper's SubZero-GV. With a population of 2 the losses decide v's sign only, which
    does not matter: it is then SPSA at twice the evaluations, and in the paper's scale at twice the rate.

    Args:
        dim, population, ..., plane_steps: as for every estimator; the population is the paper's M.
        best_share: share of the pool that counts as the best, the paper's alpha.

    Raises:
        UserError: an argument out of range.
    """

    def __init__(
        self,
        *arguments: Any,
        best_share: Annotated[float, "guided: share of the pool that counts as its best"] = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        if not 0 < best_share < 1:
            raise UserError(f"best_share: {best_share} cannot work; it takes a share between 0 and 1, such as 0.5")
        self._best_share = best_share

    def _weights(self, losses: Points) -> Points:
        return weights.guiding(losses, self._best_share)


class Greedy(Pool):
    """MeZO-Greedy (arXiv 2601.04710): v is the best probe."""

    def _weights(self, losses: Points) -> Points:
        return weights.greedy(losses)
