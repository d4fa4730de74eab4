"""Class scores as a linear function of a few coefficients, and the coefficients with the lowest loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.optimizers.base import Points

_ITERATIONS = 200  # a problem of 20 coefficients takes some 30


class LinearScores:
    """What the scores would be at x + sum_p a_p v_p, if they changed in proportion: S(a) = S_0 + sum_p a_p (S_p - S_0).

    A candidate with a score that is no number is left out: its coefficient is 0. A class that an example does not
    have, -inf at x, stays at -inf.

    Args:
        scores: (1 + K, N, C), S_0 at x and S_p at x + v_p.
        loss: the objective on these examples, differentiable and, for one minimum, convex: (1, N, C) to (1,).

    Attributes:
        usable: (K,) bool, which candidates count.
    """

    def __init__(self, scores: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        self._loss = loss
        self._base = scores[0].double()
        absent = self._base == -torch.inf
        changes = (scores[1:].double() - self._base).masked_fill(absent, 0.0)
        self.usable: np.ndarray = changes.isfinite().flatten(1).all(1).numpy()
        if not (self._base.isfinite() | absent).all():
            self.usable[:] = False
        self._changes = changes[torch.from_numpy(self.usable)]

    def loss(self, coefficients: Points) -> float:
        """The loss at S(a).

        Args:
            coefficients: (K,), a.
        """
        with torch.no_grad():
            return float(self._at(torch.from_numpy(coefficients[self.usable])))

    def optimum(self, damping: float) -> Points:
        """The a (K,) that minimises loss(S(a)) + damping / 2 |a|^2; no forward is needed for it.

        Raises:
            UserError: the loss has no derivative.
        """
        coefficients = np.zeros(len(self.usable))
        if not self.usable.any():
            return coefficients
        a = torch.zeros(len(self._changes), dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [a], max_iter=_ITERATIONS, max_eval=4 * _ITERATIONS, history_size=20, tolerance_grad=1e-10,
            tolerance_change=1e-14, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Tensor:
            solver.zero_grad()
            loss = self._at(a)
            if not loss.requires_grad:
                raise UserError(
                    "objective: its loss has no slope in the scores (as an accuracy has none); choose one that has, "
                    "such as cross-entropy, or an optimizer that takes losses, such as cma"
                )
            total = loss + damping / 2 * a.square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            solver.step(closure)
        solved = a.detach().numpy()
        if np.isfinite(solved).all():
            coefficients[self.usable] = solved
        return coefficients

    def _at(self, a: Tensor) -> Tensor:
        scores = self._base + torch.tensordot(a, self._changes, 1)
        return self._loss(scores[None]).squeeze(0)
