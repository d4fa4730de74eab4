"""CMA-ES, by pycma: with a full or a diagonal covariance matrix."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, ClassVar

import numpy as np

from dfolora.errors import unknown
from dfolora.optimizers.base import Optimizer, Points

with warnings.catch_warnings():
    # pycma mentions at import that it could not plot; nothing here ever plots.
    warnings.filterwarnings("ignore", message="Could not import matplotlib")
    import cma

INCUMBENTS = ("mean", "best")


class CMA(Optimizer):
    """CMA-ES with a full covariance matrix (Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772).

    It never stops by itself: pycma only reports its stopping criteria, and nobody asks for them here.

    Args:
        dim, population, sigma, seed, generations, bound: as for every optimizer; ``generations`` is not needed.
        incumbent: ``mean``, the mean of the search distribution, which averages the noise of few-shot losses away; or
            ``best``, the best candidate ever evaluated, which is what the DFO-LoRA release keeps.

    Raises:
        UserError: an argument out of range.
    """

    least_population = 3  # the two-point step size takes two of them for itself
    _options: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        *arguments: Any,
        incumbent: Annotated[
            str, "what a layer holds between visits: mean (of the search distribution) or best", INCUMBENTS
        ] = "mean",
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        if incumbent not in INCUMBENTS:
            raise unknown("incumbent", incumbent, INCUMBENTS)
        self._keeps_best = incumbent == "best"
        options = {
            "randn": self.rng.randn,
            "seed": np.nan,  # any other value would seed numpy's global generator
            "verbose": -9,
            "popsize": self.population,
            "bounds": None if self.bound is None else [-self.bound, self.bound],
            **self._options,
        }
        self._sampled: list[Points] = []
        self._told: list[float] = []
        self._es = cma.CMAEvolutionStrategy(np.zeros(self.dim), self.sigma, options)
        # The two-point step size that pycma picks in large dimensions checks some coordinates in every tell, and draws
        # them from numpy's global generator, whatever "randn" is. The check warns and changes nothing.
        self._es.adapt_sigma.check_consistency = lambda es: None

    def _ask(self) -> Points:
        # pycma gets its own float64 points back, not their float32 roundings. Those it would take for injected ones:
        # it then clips their steps, refuses some at the bounds, reports broken mirrored samples in the two-point
        # step size, and its diagonal variant ended in NaN once the steps had shrunk to the rounding error.
        if self._told:
            self._es.tell(self._sampled, self._told)
            self._told = []
        self._sampled = self._es.ask()
        return np.array(self._sampled)

    def _tell(self, points: Points, losses: Points) -> None:
        # pycma learns of them in the next ask: its update and its eigendecomposition take milliseconds, and until then
        # only the mean is wanted.
        self._told = losses.tolist()

    def _incumbent(self) -> Points:
        return self.best if self._keeps_best else self._mean()

    def _mean(self) -> Points:
        """The mean that pycma will have once it has been told, by the same operations in the same order."""
        weights = self._es.sp.weights
        best = [self._sampled[i] for i in np.argsort(self._told)[: weights.mu]]
        # A bounded search recombines what the points were before they were folded into the bounds.
        unfolded = [self._es.sent_solutions[x]["geno"] for x in best]
        mean = np.dot(weights.positive_weights, np.array(unfolded))
        if self._es.sp.cmean != 1:
            mean = self._es.sp.cmean * mean + (1 - self._es.sp.cmean) * self._es.mean
        return np.array(self._es.gp.pheno(mean, into_bounds=self._es.boundary_handler.repair))


class SepCMA(CMA):
    """CMA-ES with a diagonal covariance matrix: linear time and memory in d, faster learning where d is large.

    Ros & Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity", PPSN 2008.
    """

    _options: ClassVar[dict[str, Any]] = {"CMA_diagonal": True}
