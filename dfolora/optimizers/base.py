"""The one interface that every search method has: ask, tell, incumbent.

What is slow belongs into ``_ask``: it is the part that ``ask_ahead`` lets another thread do.

Shape letters: P population, d dimension of the searched space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dfolora.errors import UserError

Points = NDArray[np.float64]

# What stands for a non-finite loss while no finite one has ever been told: worse than anything a first finite
# loss can be, yet small enough that sums and differences of it stay finite.
_HOPELESS = 1e20


class Optimizer(ABC):
    """A black-box minimiser over R^d that starts at zero. Subclasses fill in ``_ask``, ``_tell`` and ``_incumbent``.

    Inside, everything is float64 numpy; outside, float32 torch on the CPU. What a subclass is told are the very float32
    points that were evaluated, not the float64 ones they were rounded from.

    Args:
        dim: d, the number of coordinates.
        population: P, how many candidates each generation asks for.
        sigma: standard deviation of the first generation around zero, per coordinate.
        seed: of the only randomness there is; two instances never share any, nor do they touch a global generator.
        generations: how many generations the run will have, where it is known. Only a few methods plan with it.
        bound: candidates stay in [-bound, bound] in every coordinate; None leaves the space unbounded.

    Raises:
        UserError: an argument out of range; the message names its flag.
    """

    least_population = 1
    options: ClassVar[tuple[str, ...]] = ()  # what a class takes beyond these and a user may set by a flag
    touches_globals: ClassVar[bool] = False  # whether it changes, if only for a while, what all threads share

    def __init__(
        self,
        dim: int,
        population: int = 20,
        sigma: float = 0.1,
        seed: int = 0,
        generations: int | None = None,
        bound: float | None = None,
    ) -> None:
        if dim < 1:
            raise UserError(f"dim: {dim} is no space to search; it takes at least 1 coordinate")
        if population < self.least_population:
            raise UserError(
                f"--population: {population} is too few for {type(self).__name__}; "
                f"it takes at least {self.least_population}"
            )
        if not (sigma > 0 and math.isfinite(sigma)):
            raise UserError(f"--sigma: {sigma} is no step size; it takes a number above 0, such as 0.1")
        if not 0 <= seed < 2**32:
            raise UserError(f"--seed: {seed} is out of range; it takes 0 to {2**32 - 1}")
        if generations is not None and generations < 1:
            raise UserError(f"generations: {generations} is no search; it takes at least 1")
        if bound is not None and not (bound >= sigma and math.isfinite(bound)):
            raise UserError(f"--sigma: {sigma} does not fit a bound of {bound}; it takes at most the bound")
        self.dim = dim
        self.population = population
        self.sigma = float(sigma)
        self.generations = generations
        self.bound = bound
        # RandomState, unlike Generator, promises the same stream in every numpy version: runs are replayed from logs.
        self.rng = np.random.RandomState(seed)
        self._limit = _largest_float32(bound)
        self._asked: Points | None = None
        self._ahead: Future[NDArray[np.float32]] | None = None
        self._finite = np.zeros(0, dtype=bool)
        self._held = np.zeros(dim)
        self._worst: float | None = None
        self._best = (math.inf, np.zeros(dim))

    @property
    def begins(self) -> bool:
        """Whether the next ask begins a step, so that it may be measured on other examples than the last one.

        Settled by the last tell: ``_ask`` does not change it, as it may be running already.
        """
        return True

    def ask(self) -> torch.Tensor:
        """The next generation.

        Returns:
            (P, d) float32 on the CPU, the caller's own copy. P may differ from one generation to the next.

        Raises:
            RuntimeError: the last generation has not been told yet.
        """
        self._refuse_untold("ask")
        # What no thread has begun is quicker done here than waited for.
        begun = self._ahead is not None and not self._ahead.cancel()
        points = self._ahead.result() if self._ahead is not None and begun else self._rounded()
        self._ahead = None
        self._asked = points.astype(np.float64)
        return torch.from_numpy(points)

    def ask_ahead(self, workers: Executor) -> None:
        """Let another thread begin the next ask, which then takes only what is left of it; no number depends on this.

        Until that ask, only ``incumbent`` and ``begins`` may be called. What the thread raises is raised by the ask.
        An optimizer that touches what all threads share does nothing here.

        Args:
            workers: threads of this process.

        Raises:
            RuntimeError: the last generation has not been told yet.
        """
        self._refuse_untold("ask_ahead")
        if self._ahead is None and not self.touches_globals:
            self._ahead = workers.submit(self._rounded)

    def tell(self, losses: torch.Tensor | NDArray[np.floating] | Sequence[float]) -> None:
        """Report the losses of the last ask.

        A NaN or an infinity of either sign counts as worse than every finite loss told so far. A generation without
        a single finite loss carries no information and leaves the incumbent where it is.

        Args:
            losses: (P,) of any real dtype, in the order of the candidates; lower is better.

        Raises:
            RuntimeError: nothing has been asked.
            ValueError: not one loss per candidate.
        """
        if self._asked is None:
            raise RuntimeError("tell: nothing has been asked; call ask first")
        raw = losses.detach().to("cpu", torch.float64).numpy() if isinstance(losses, torch.Tensor) else losses
        values = np.array(raw, dtype=np.float64)
        if values.shape != (len(self._asked),):
            raise ValueError(f"tell: got losses of shape {values.shape} for {len(self._asked)} candidates")
        points, self._asked = self._asked, None
        finite = np.isfinite(values)
        if finite.any():
            best = int(np.argmin(np.where(finite, values, math.inf)))
            if values[best] < self._best[0]:
                self._best = (float(values[best]), points[best].copy())
            worst = float(values[finite].max())
            self._worst = worst if self._worst is None else max(self._worst, worst)
        values[~finite] = self._penalty()
        self._finite = finite
        self._tell(points, values)
        if finite.any():
            self._held = self._incumbent()

    def incumbent(self) -> torch.Tensor:
        """What the layer should hold now: (d,) float32 on the CPU, finite; zeros until a finite loss has been told."""
        return torch.from_numpy(np.clip(self._held, -self._limit, self._limit).astype(np.float32))

    def _refuse_untold(self, call: str) -> None:
        if self._asked is not None:
            raise RuntimeError(f"{call}: the last generation has not been told its losses yet")

    def _rounded(self) -> NDArray[np.float32]:
        return np.clip(self._ask(), -self._limit, self._limit).astype(np.float32)

    def _penalty(self) -> float:
        if self._worst is None:
            return _HOPELESS
        # The whole history counts, not this generation: a survivor with a loss of long ago must not lose to a NaN.
        return min(self._worst + max(1.0, abs(self._worst)), float(np.finfo(np.float64).max))

    def _inside(self, points: Points) -> Points:
        """Draw coordinates that left the bounds anew, uniformly inside them; (P, d) -> (P, d)."""
        if self.bound is None:
            return points
        fresh = self.rng.uniform(-self.bound, self.bound, points.shape)
        return np.where(np.abs(points) > self.bound, fresh, points)

    @abstractmethod
    def _ask(self) -> Points:
        """(P, d). It may run in another thread, while nothing else of this instance does."""

    @abstractmethod
    def _tell(self, points: Points, losses: Points) -> None:
        """(P, d) as evaluated and (P,), all finite; ``self._finite`` (P,) says which of them are no penalties."""

    @abstractmethod
    def _incumbent(self) -> Points:
        """(d,), after a tell with a finite loss."""


def _largest_float32(bound: float | None) -> float:
    """The largest float32 that is not above the bound: rounding must not carry a candidate outside."""
    if bound is None:
        return float(np.finfo(np.float32).max)
    limit = np.float32(bound)
    return float(np.nextafter(limit, np.float32(0)) if float(limit) > bound else limit)
