"""Gauss-Newton without gradients: the scores of every example at a few probes say where the loss is lowest.

Where other methods are told one number for each candidate, this one looks at the N x C class scores that the same
forward computed. They are nearly linear in a small step, and the loss of the linear model is a convex problem of as
many numbers as there are probes. It is the generalised Gauss-Newton method (Schraudolph 2002) with the Jacobian of the
scores taken by finite differences in the span of the probes, and damped as Levenberg (1944) and Marquardt (1963) do.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import numpy as np

from dfolora.errors import UserError
from dfolora.optimizers.base import Optimizer, Points
from dfolora.optimizers.evaluation import Evaluation
from dfolora.optimizers.linear_scores import LinearScores

_LENGTHS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125)
_GOOD, _BAD = 0.75, 0.25  # shares of the promised loss that were gained: above, damping falls; below, it rises
_FALL, _RISE = 1 / 3, 4.0
_LEAST, _MOST = 1e-3, 1e6  # of the damping, in units of the first


class GaussNewton(Optimizer):
    """A step of two generations: probes around x, then a few lengths of the step that their scores suggest.

    First x and x + sigma sqrt(d) q_p are asked, for random orthonormal directions q_p, new in each step: population - 1
    of them, or d, which span the whole space. So long a probe is as far from x as a standard normal one of that sigma.
    With S_0 and S_p the scores, the step is sum_p a_p sigma sqrt(d) q_p, where a minimises

        loss(S_0 + sum_p a_p (S_p - S_0)) + damping / 2 |a|^2.

    Then a few lengths of it are asked on the same examples, and the best becomes x if it beats x. The damping falls
    where the step of length 1 has gained most of what the linear scores promised, and rises where it has not.

    A log keeps the a_p and the promise; told again from it, the search needs no scores.

    Args:
        dim, population, sigma, seed, generations, bound: as for every optimizer; ``generations`` is not needed.
        damping: at the first step, per square of a probe's length.
        steps: how many lengths are tried: 1, 1/2, 2, 1/4, 4, 1/8 in this order, no more than the population.
        adapt: change the damping as described; off, it stays.

    Raises:
        UserError: an argument out of range; told losses without the scores.
    """

    wants: ClassVar[str] = "scores"
    visit: ClassVar[int] = 2  # what scores say of a step is true as long as the other layers stay
    least_population = 2

    def __init__(
        self,
        *arguments: Any,
        damping: Annotated[float, "gauss-newton: penalty on the square of a step, in lengths of a probe"] = 0.1,
        steps: Annotated[int, "gauss-newton: how many lengths of a step are tried, 1 to 6"] = 4,
        adapt: Annotated[bool, "gauss-newton: change the damping by what steps gain of what they promise"] = True,
        **common: Any,
    ) -> None:
        super().__init__(*arguments, **common)
        if not 0 < damping < math.inf:
            raise UserError(f"damping: {damping} cannot work; it takes a number above 0, such as 0.1")
        if not 1 <= steps <= len(_LENGTHS):
            raise UserError(f"steps: {steps} cannot work; it takes 1 to {len(_LENGTHS)}")
        self.damping = self._first_damping = damping
        self._adapt = adapt
        self._lengths = np.array(_LENGTHS[: min(steps, self.population)])
        self._x = np.zeros(self.dim)
        self._step: Points | None = None  # that the last probes suggest, until its lengths have been told
        self._loss = math.inf  # of x, measured with these probes
        self._promise = 0.0

    @property
    def begins(self) -> bool:
        return self._step is None  # lengths are measured on the examples that the probes were

    def _ask(self) -> Points:
        if self._step is not None:
            # Where no step is promised x alone is asked, so that a step is always two generations.
            return self._x + (self._lengths if self._step.any() else np.zeros(1))[:, None] * self._step
        normal = self.rng.standard_normal((self.dim, min(self.dim, self.population - 1)))
        directions = np.linalg.qr(normal)[0].T
        return np.concatenate([self._x[None], self._x + self.sigma * math.sqrt(self.dim) * directions])

    def _summary(self, points: Points, losses: Points, evaluation: Evaluation) -> dict[str, Any] | None:
        if self._step is not None:
            return None
        if evaluation.scores is None or evaluation.loss_of_scores is None:
            raise ValueError("tell: scores must come with the loss_of_scores")
        model = LinearScores(evaluation.scores, evaluation.loss_of_scores)
        a = model.optimum(self.damping)
        promise = model.loss(np.zeros_like(a)) - model.loss(a)
        return {"coefficients": a.tolist(), "promise": promise if math.isfinite(promise) else 0.0}

    def _tell(self, points: Points, losses: Points) -> None:
        if self._step is None:
            self._suggest(points, losses)
        else:
            self._move(points, losses)

    def _suggest(self, points: Points, losses: Points) -> None:
        """The step that the probes' scores suggest; none where x itself has no loss."""
        coefficients = np.array((self.summary or {}).get("coefficients", ()), dtype=np.float64)
        if len(coefficients) != len(points) - 1:
            raise UserError(
                f"optimizer: the log has {len(coefficients)} coefficients for {len(points) - 1} probes of gauss-newton"
            )
        # The probes as they were evaluated: rounded, and cut off at a bound. einsum adds in one order, threads or not.
        step = np.einsum("p,pd->d", coefficients, points[1:] - points[0])
        self._step = step if self.finite[0] else np.zeros(self.dim)
        self._loss, self._promise = float(losses[0]), float((self.summary or {})["promise"])

    def _move(self, points: Points, losses: Points) -> None:
        """Take the best length, and judge the linear model by length 1, which comes first."""
        best = int(np.argmin(losses))
        if self.finite[best] and losses[best] < self._loss:
            self._x = points[best].copy()
        gained = self._loss - losses[0] if self.finite[0] else -math.inf
        if self._adapt and self._promise > 0:
            share = gained / self._promise
            factor = _FALL if share > _GOOD else _RISE if share < _BAD else 1.0
            low, high = _LEAST * self._first_damping, _MOST * self._first_damping
            self.damping = min(max(factor * self.damping, low), high)
        self._step = None

    def _incumbent(self) -> Points:
        return self._x.copy()
