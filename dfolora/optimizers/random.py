"""Random search: the baseline that every other method has to beat."""

from __future__ import annotations

from dfolora.optimizers.base import Optimizer, Points


class RandomSearch(Optimizer):
    """Every candidate is drawn from N(0, sigma^2 I), with no memory; the incumbent is the best ever drawn."""

    def _ask(self) -> Points:
        return self._inside(self.sigma * self.rng.standard_normal((self.population, self.dim)))

    def _tell(self, points: Points, losses: Points) -> None:
        pass

    def _incumbent(self) -> Points:
        return self.best
