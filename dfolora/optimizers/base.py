"""The one interface that every search method has: ask for candidates, tell their losses, read the incumbent.

What is slow belongs into ``_ask``: it is the part that ``ask_ahead`` lets another thread do.

Shape letters: P population, d dimension of the searched space, N examples, C classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dfolora.errors import UserError
from dfolora.optimizers.evaluation import Evaluation

Points = NDArray[np.float64]
Losses = torch.Tensor | NDArray[np.floating] | Sequence[float]

_TRIAL_DIM = 100  # of the instance that is built only to check arguments
_MISSING = {
    "scores": "the class scores of every example, which a metric, a reward or generated text has none of",
    "example_losses": "a loss for every example",
}

# What stands for a non-finite loss while no finite one has ever been told: worse than anything a first finite
# loss can be, yet small enough that sums and differences of it stay finite.
_HOPELESS = 1e20


class Optimizer(ABC):
    """A black-box minimiser over R^d that starts at zero. Subclasses fill in ``_ask``, ``_tell`` and ``_incumbent``.

    Inside, everything is float64 numpy; outside, float32 torch on the CPU. What a subclass is told are the very float32
    points that were evaluated, not the float64 ones they were rounded from.

    Options of a subclass are keyword parameters of its constructor, which passes the rest on:
    ``def __init__(self, *arguments, decay: Annotated[float, "share of the step kept"] = 0.9, **common)``. They are
    then options on the command line, too.

    Args:
        dim: d, the number of coordinates.
        population: P, how many candidates each generation asks for.
        sigma: standard deviation of the first generation around zero, per coordinate.
        seed: of the only randomness there is; two instances never share any, nor do they touch a global generator.
        generations: how many generations the run will have, where it is known. Only a few methods plan with it.
        bound: candidates stay in [-bound, bound] in every coordinate; None leaves the space unbounded.

    Attributes:
        dim, population, sigma, seed, generations, bound: as given.
        rng: numpy's RandomState of that seed; draw from nothing else.
        started: whether anything has been asked yet.
        claimed: whether it was given to a part of a search as it is, which no other part may then have.
        best: (d,) float64, the candidate with the lowest loss ever told; zeros before there is one.
        best_loss: its loss; infinite before there is one.
        finite: (P,) bool, which of the losses that ``_tell`` receives were told and which stand for a NaN or infinity.
        summary: what ``_summary`` made of the evaluation that ``_tell`` is being told, or what the log held of it.

    Raises:
        UserError: an argument out of range; the message names it.
    """

    least_population = 1
    touches_globals: ClassVar[bool] = False  # whether it changes, if only for a while, what all threads share
    visit: ClassVar[int] = 1  # a visit of a layer lasts a multiple of so many generations
    wants: ClassVar[str] = "losses"  # or "example_losses" or "scores": what an Evaluation must hold beside the losses

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
            raise UserError(f"dim: {dim} cannot work; it takes at least 1 coordinate")
        if population < self.least_population:
            raise UserError(
                f"population: {population} is too few for {type(self).__name__}; "
                f"it takes at least {self.least_population}"
            )
        if not (sigma > 0 and math.isfinite(sigma)):
            raise UserError(f"sigma: {sigma} cannot work; it takes a number above 0, such as 0.1")
        if not 0 <= seed < 2**32:
            raise UserError(f"seed: {seed} is out of range; it takes 0 to {2**32 - 1}")
        if generations is not None and generations < 1:
            raise UserError(f"generations: {generations} cannot work; it takes at least 1")
        if bound is not None and not (bound >= sigma and math.isfinite(bound)):
            raise UserError(f"sigma: {sigma} does not fit a bound of {bound}; it takes at most the bound")
        self.dim = dim
        self.population = population
        self.sigma = float(sigma)
        self.seed = seed
        self.generations = generations
        self.bound = bound
        # RandomState, unlike Generator, promises the same stream in every numpy version: runs are replayed from logs.
        self.rng = np.random.RandomState(seed)
        self.started = self.claimed = False
        self.finite = np.zeros(0, dtype=bool)
        self.summary: dict[str, Any] | None = None
        self._limit = _largest_float32(bound)
        self._asked: Points | None = None
        self._ahead: Future[NDArray[np.float32]] | None = None
        self._held = np.zeros(dim)
        self._worst: float | None = None
        self._best = (math.inf, np.zeros(dim))

    @classmethod
    def check(cls, population: int = 20, sigma: float = 0.1, bound: float | None = None, **options: Any) -> None:
        """Refuse what can work in no space, before anything that takes long; here by building one in 100 dimensions.

        Raises:
            UserError: an argument or an option out of range.
        """
        try:
            cls(_TRIAL_DIM, population=population, sigma=sigma, bound=bound, **options)
        except UserError as error:
            if not str(error).startswith("dim:"):
                raise
        except Exception:  # somebody's class that has no use for 100 dimensions: it is built again for those it gets
            return

    @property
    def best(self) -> Points:
        return self._best[1]

    @property
    def best_loss(self) -> float:
        return self._best[0]

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
        self.started = True
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
        self.started = True
        if self._ahead is None and not self.touches_globals:
            self._ahead = workers.submit(self._rounded)

    def tell(self, evaluation: Evaluation | Losses) -> None:
        """Report how the candidates of the last ask did.

        A NaN or an infinity of either sign counts as worse than every finite loss told so far. A generation without
        a single finite loss carries no information and leaves the incumbent where it is.

        Args:
            evaluation: losses (P,) of any real dtype, in the order of the candidates, lower is better; or these and
                more, for an optimizer that ``wants`` more.

        Raises:
            RuntimeError: nothing has been asked.
            ValueError: not one loss per candidate.
            UserError: the optimizer wants more than what is told.
        """
        losses = self._fitting(evaluation.losses if isinstance(evaluation, Evaluation) else evaluation)
        told = evaluation if isinstance(evaluation, Evaluation) else Evaluation(torch.from_numpy(losses.copy()))
        if getattr(told, self.wants) is None:
            raise UserError(
                f"optimizer: {type(self).__name__} needs {_MISSING[self.wants]}; choose an objective of class scores, "
                "such as cross-entropy, or an optimizer that takes losses, such as cma"
            )
        points = self._take(losses)
        self.summary = self._summary(points, losses, told)
        self._learn(points, losses)

    def note(self) -> dict[str, Any] | None:
        """What a log must hold beside the losses for ``retell``: numbers and lists; None where losses are enough."""
        return self.summary

    def retell(self, losses: Losses, note: dict[str, Any] | None) -> None:
        """Report a generation again from a log; leaves the optimizer, to the last bit, as the ``tell`` that wrote it.

        Args:
            losses: (P,), as they were told.
            note: what ``note`` gave after it.

        Raises:
            RuntimeError, ValueError: as ``tell``.
        """
        values = self._fitting(losses)
        points = self._take(values)
        self.summary = note
        self._learn(points, values)

    def incumbent(self) -> torch.Tensor:
        """What the layer should hold now: (d,) float32 on the CPU, finite; zeros until a finite loss has been told."""
        return torch.from_numpy(np.clip(self._held, -self._limit, self._limit).astype(np.float32))

    def _fitting(self, losses: Losses) -> Points:
        """The losses as (P,), if there is one for each candidate that was asked."""
        if self._asked is None:
            raise RuntimeError("tell: nothing has been asked; call ask first")
        raw = losses.detach().to("cpu", torch.float64).numpy() if isinstance(losses, torch.Tensor) else losses
        values = np.array(raw, dtype=np.float64)
        if values.shape != (len(self._asked),):
            raise ValueError(f"tell: got losses of shape {values.shape} for {len(self._asked)} candidates")
        return values

    def _take(self, losses: Points) -> Points:
        """The candidates that were asked, (P, d), asked no more; a penalty in the place of each loss that is none."""
        assert self._asked is not None
        points, self._asked = self._asked, None
        finite = np.isfinite(losses)
        if finite.any():
            best = int(np.argmin(np.where(finite, losses, math.inf)))
            if losses[best] < self._best[0]:
                self._best = (float(losses[best]), points[best].copy())
            worst = float(losses[finite].max())
            self._worst = worst if self._worst is None else max(self._worst, worst)
        losses[~finite] = self._penalty()
        self.finite = finite
        return points

    def _learn(self, points: Points, losses: Points) -> None:
        self._tell(points, losses)
        if self.finite.any():
            self._held = self._incumbent()

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
        """The next candidates, (P, d). It may run in another thread, while nothing else of this instance does."""

    @abstractmethod
    def _tell(self, points: Points, losses: Points) -> None:
        """Learn from a generation: candidates (P, d) as evaluated, losses (P,), all finite.

        Where ``self.finite`` (P,) is False, the candidate had no finite loss, and a penalty stands in its place.
        """

    def _summary(self, points: Points, losses: Points, evaluation: Evaluation) -> dict[str, Any] | None:
        """What ``_tell`` needs of an evaluation beyond the losses, as numbers and lists; it is what a log keeps.

        It must change nothing: ``_tell``, which finds it as ``self.summary``, is the only one that does. So a search
        told again from its log ends where it was.
        """
        return None

    @abstractmethod
    def _incumbent(self) -> Points:
        """What the layer should hold, (d,), after a tell with a finite loss."""


def _largest_float32(bound: float | None) -> float:
    """The largest float32 that is not above the bound: rounding must not carry a candidate outside."""
    if bound is None:
        return float(np.finfo(np.float32).max)
    limit = np.float32(bound)
    return float(np.nextafter(limit, np.float32(0)) if float(limit) > bound else limit)
