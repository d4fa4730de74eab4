"""What all estimators share: probe around x, estimate the gradient, step.

The learning rate is that of a step along one direction u of unit mean square, mean(u^2) = 1:

    x <- x - lr s u,    s = dL(x + t u) / dt at t = 0.

So where the loss along u has the curvature h = d^2 L / dt^2, lr = 1 / h with ``sgd`` ends at the minimum of that line,
whatever the population, the number of directions, their noise, the weights, sigma or d. The subspaces are scaled so
that t = 1 changes a module's output by ``scale`` times itself, and there the h of a cross-entropy is near 1. ``adam``,
the default, divides all scales out: its lr is about how far a coordinate moves in a step, in the units of sigma.

Which rate is right depends on the model and the data, so ``auto``, the default, measures it: see ``ladder``.

With ``paper_scale`` the estimate keeps the length that the papers give it, which grows with d and with the pool's
weights, and lr means what it means there.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np

from dfolora.errors import UserError
from dfolora.optimizers.base import Optimizer, Points
from dfolora.optimizers.evaluation import Evaluation
from dfolora.optimizers.zeroth_order.ladder import Ladder
from dfolora.optimizers.zeroth_order.noise import NOISE_NAMES, make_noise
from dfolora.optimizers.zeroth_order.update import UPDATE_NAMES, Update

AUTO = "auto"


class Estimator(Optimizer):
    """A point x that is moved by estimates of the gradient; it is the incumbent, and starts at zero.

    Subclasses fill in ``_probes`` and ``_gradient``. What they estimate from are the differences between x and the
    candidates that were evaluated, rounding and bounds included, not the directions that were drawn.

    A loss that is not finite counts as the worst finite one of its generation: it pushes away, by no more than a bad
    candidate would. Fewer than two finite losses make no difference that could be measured, and x stays.

    With ``lr="auto"`` x waits after the first estimate: one generation more, or several where the population is less
    than 8, asks for x and a ladder of lengths of that step, on the same examples. The note holds the rate, and x takes
    the step. Where no rung is better than x, it stays, and the next estimate has a ladder of its own.

    Args:
        dim, population, sigma, seed, generations, bound: as for every optimizer. ``sigma`` is the size of a probe, the
            papers' epsilon: standard deviation of a coordinate. ``generations`` is not needed. x is cut off at the
            bound, like every candidate.
        lr: learning rate, see above; ``auto`` measures it.
        noise: gaussian, rademacher or plane; None takes the method's own.
        update: sgd, momentum or adam; None takes the method's own.
        paper_scale: step along the estimate as the papers scale it.
        plane_dim, plane_steps: dimensions of the plane that ``noise="plane"`` draws from and steps that it is kept for;
            None takes 32 and 10.

    Raises:
        UserError: an argument out of range or an unknown name.
    """

    least_population = 2
    _noise_name: ClassVar[str] = "gaussian"
    _update_name: ClassVar[str] = "adam"

    def __init__(
        self,
        *arguments: Any,
        lr: Annotated[
            float | str | None,
            "learning rate of a zeroth-order estimator; auto: a ladder of rates is tried along the first step",
        ] = AUTO,
        noise: Annotated[
            str | None,
            "probes of an estimator: gaussian, rademacher, plane (a random one); nothing: what its paper takes",
            NOISE_NAMES,
        ] = None,
        update: Annotated[
            str | None,
            "steps of an estimator: sgd, momentum, adam; nothing: adam, or what its paper takes",
            UPDATE_NAMES,
        ] = None,
        paper_scale: Annotated[
            bool, "step along an estimate as its paper scales it, so that the paper's rates apply"
        ] = False,
        plane_dim: Annotated[int | None, "dimensions of noise plane; nothing: 32"] = None,
        plane_steps: Annotated[int | None, "steps until noise plane takes another one; nothing: 10"] = None,
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        self.paper_scale = paper_scale
        self._noise = make_noise(noise or self._noise_name, self.dim, self.seed, plane_dim, plane_steps)
        update = update or self._update_name
        if isinstance(lr, str) and lr != AUTO:
            raise UserError(f"lr: {lr!r} is neither a number nor {AUTO}")
        self._measures = lr is None or isinstance(lr, str)  # the rate, by a ladder, at the next estimate
        self._update = Update(update, self.dim) if lr is None or isinstance(lr, str) else Update(update, self.dim, lr)
        self._ladder: Ladder | None = None
        self._step = 0

    @property
    def begins(self) -> bool:
        return self._ladder is None  # rungs are measured on the examples that the probes were

    def _ask(self) -> Points:
        if self._ladder is not None:
            return self._ladder.candidates(self._update.x)
        return self._update.x + self.sigma * self._probes()

    def _summary(self, points: Points, losses: Points, evaluation: Evaluation) -> dict[str, Any] | None:
        if self._ladder is None:
            return None
        gains = self._ladder.gains(losses, self.finite)
        return {"lr": self._ladder.rate(gains) if self._ladder.ends(gains) else None}

    def _tell(self, points: Points, losses: Points) -> None:
        if self._ladder is not None:
            self._climb(self._ladder, losses)
            return
        finite = self.finite
        with np.errstate(all="ignore"):  # losses of 1e300 make infinite estimates, which are not followed
            if finite.sum() < 2:
                gradient: Points | None = np.full(self.dim, np.nan)
            else:
                losses = np.where(finite, losses, losses[finite].max())
                gradient = self._gradient((points - self._update.x) / self.sigma, losses)
        if gradient is None:
            return
        if np.isfinite(gradient).all():
            if self._measures and (unit := self._update.lasting_step(gradient)).any():
                self._ladder = Ladder(gradient, unit, self.population)
                return
            self._update.step(gradient, self._limit)
        self._step += 1

    def _climb(self, ladder: Ladder, losses: Points) -> None:
        """Learn from rungs; after the last ones take the step at the rate that the note holds, if any."""
        gains = ladder.gains(losses, self.finite)
        ladder.tell(gains)
        if not ladder.ends(gains):
            return
        rate = (self.summary or {}).get("lr")
        if rate is not None:
            self._update.lr, self._measures = float(rate), False
            self._update.step(ladder.gradient, self._limit)
        self._ladder = None
        self._step += 1

    def _incumbent(self) -> Points:
        return self._update.x

    @abstractmethod
    def _probes(self) -> Points:
        """(P, d): where to look next, from x and in units of sigma."""

    @abstractmethod
    def _gradient(self, directions: Points, losses: Points) -> Points | None:
        """(P, d), the probes as they were evaluated, and (P,), all finite, to (d,).

        None where the step goes on with another generation; NaN where nothing can be said.
        """
