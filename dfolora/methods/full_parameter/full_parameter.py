"""Steps of a zeroth-order method on all parameters of a model, in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.errors import UserError, unknown
from dfolora.methods.full_parameter.methods import METHODS, Estimate, Settings
from dfolora.methods.full_parameter.point import Point
from dfolora.methods.full_parameter.step import NOISE, Step, finite

Loss = Callable[[], float | Tensor]


class FullParameter:
    """MeZO, MeZO-GV or MeZO-Greedy on every parameter of an unmodified model: the papers' "FT" rows.

    The model is displaced, asked for its loss, and restored to the last bit (see ``rounding``); no direction is ever
    held. The learning rate is that of ``dfolora.optimizers.zeroth_order``: with u the direction at unit mean square and
    s the slope along it, x <- x - lr s u. For spsa with population 2 that is MeZO's own. With ``paper_scale`` the
    estimate keeps the length that the papers give it.

    In 16 bits a probe is rounded to nearest, so that it does not reach weights whose neighbours are more than twice as
    far away: at eps 1e-3 most of a bfloat16 norm's ones. Float32 has no such weights.

    Attributes:
        lr: learning rate; it may be changed between steps, and the log keeps each step's own.
        seed: of all noise.
        base: fingerprint of the weights at the start.
        steps: done so far.
        evaluations: losses asked for so far, those of a replayed run included.
        point: the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        estimator: str = "spsa",
        population: int = 2,
        eps: float = 1e-3,
        lr: float = 1e-6,
        seed: int = 0,
        paper_scale: bool = False,
        best_share: float = 0.5,
        chunk: int = 0,
    ) -> None:
        """Find the model's parameters; nothing is changed yet.

        Args:
            model: in evaluation mode, since dropout would make each probe another function.
            loss: the model's loss as it stands; lower is better. Within a step it should see the same batch each time.
            estimator: ``spsa``, ``guided`` or ``greedy``.
            population: spsa: P asks P / 2 directions from both sides; guided, greedy: the size of the pool.
            eps: size of a probe: standard deviation of a weight's displacement.
            lr: see above. 1e-6 and 1e-7 are what MeZO searches for models of billions of weights.
            seed: of all noise, 0 to 2**32 - 1.
            paper_scale: step along the estimate as the papers scale it.
            best_share: guided: share of the pool that counts as the best, the paper's alpha.
            chunk: weights handled at once, 0: what suits the device. It changes no number.

        Raises:
            UserError: an argument out of range, an unknown estimator, a model that cannot be tuned in place.
        """
        if estimator not in METHODS:
            raise unknown("optimizer", estimator, METHODS)
        if population < 2:
            raise UserError(f"population: {population} is too few for {estimator}; it takes at least 2")
        if not 0 < eps < math.inf:
            raise UserError(f"eps: {eps} is no probe size; it takes a number above 0, such as 1e-3")
        if not 0 < lr < math.inf:
            raise UserError(f"lr: {lr} is no learning rate; it takes a number above 0")
        if not 0 < best_share < 1:
            raise UserError(f"best_share: {best_share} cannot work; it takes a share between 0 and 1, such as 0.5")
        if model.training:
            raise UserError("model: it is in training mode, where dropout changes the loss; call model.eval() first")
        if getattr(getattr(model, "config", None), "quantization_config", None) is not None:
            raise UserError("model: its weights are quantised and cannot be moved; load them in float32 or 16 bits")
        self.lr = lr
        self.evaluations = 0
        self.point = Point(model, seed, chunk)
        self._loss = loss
        self._method = METHODS[estimator]
        self._settings = Settings(population, eps, best_share, paper_scale)
        self.seed = seed
        self.base = self.point.fingerprint()
        self.steps: list[Step] = []

    def step(self) -> Step:
        """One step of the method; its line of the log.

        Probes whose loss is not finite are dropped; a step that is left with no slope changes nothing. If ``loss``
        raises, the weights are restored and the step has not happened.
        """
        try:
            estimate = self._method(self._probe, self._settings)
            step = Step(len(self.steps), self.lr, estimate.weights, estimate.slopes, finite(estimate.losses))
            self._apply(step)  # restores on the way, in one pass with the move
        finally:
            self.point.restore()
        return step

    def estimate(self) -> Estimate:
        """Estimate the gradient at the cost of a step's evaluations; the weights stay as they are."""
        try:
            return self._method(self._probe, self._settings)
        finally:
            self.point.restore()

    def origin(self) -> dict[str, Any]:
        """What steps start from, as JSON values: the seed, the weights, the noise."""
        return {"seed": self.seed, "base": self.base, "noise": NOISE}

    def check_origin(self, origin: Mapping[str, Any] | None) -> None:
        """Raise UserError if the steps to repeat started from other weights, another seed or other noise."""
        for name, value in self.origin().items():
            other = (origin or {}).get(name)
            if other != value:
                raise UserError(f"model: the steps are of another {name} ({other!r}, here {value!r})")

    def repeat(self, step: Step) -> None:
        """Do a logged step again without its forward passes: the same weights to the bit.

        Raises:
            UserError: it is not the next one.
        """
        if step.step != len(self.steps):
            raise UserError(f"steps: {len(self.steps)} comes next, not {step.step}; repeat all from the first")
        self._apply(step)
        self.evaluations += len(step.losses)

    def _apply(self, step: Step) -> None:
        if step.weights:
            self.point.move(step.step, step.weights, -step.lr)
        self.steps.append(step)

    def _probe(self, direction: Mapping[int, float]) -> float:
        self.point.displace(len(self.steps), direction, self._settings.eps)
        self.evaluations += 1
        with torch.no_grad():
            return float(self._loss())
