"""Steps along estimates of a gradient: SGD, momentum or Adam, as ``torch.optim`` takes them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from dfolora.errors import UserError, unknown
from dfolora.optimizers.base import Points

_MOMENTUM = 0.9
_RULES: dict[str, Callable[[list[torch.Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=_MOMENTUM),
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
}
UPDATE_NAMES = tuple(_RULES)


class Update:
    """A point that starts at zero and is moved by estimates of the gradient.

    Args:
        name: sgd, momentum (0.9) or adam, with torch's defaults.
        dim: d.
        lr: the rule's learning rate.

    Raises:
        UserError: an unknown name; a rate that is no positive number.
    """

    def __init__(self, name: str, dim: int, lr: float = 1.0) -> None:
        if name not in _RULES:
            raise unknown("update", name, UPDATE_NAMES)
        if not 0 < lr < math.inf:
            raise UserError(f"lr: {lr} cannot work; it takes a number above 0")
        self.name = name
        self._x = torch.zeros(dim, dtype=torch.float64)
        self._rule = _RULES[name]([self._x], lr)

    @property
    def lr(self) -> float:
        """The learning rate; it may be changed between steps."""
        return float(self._rule.param_groups[0]["lr"])

    @lr.setter
    def lr(self, lr: float) -> None:
        self._rule.param_groups[0]["lr"] = lr

    def lasting_step(self, gradient: Points) -> Points:
        """(d,): what an estimate (d,) would move x by at a rate of 1, momentum's later shares of it included.

        A rate is a factor of it, for every rule, as long as there has been no step.
        """
        fresh = Update(self.name, len(gradient))
        fresh.step(gradient, math.inf)
        return fresh.x / (1 - _MOMENTUM) if self.name == "momentum" else fresh.x

    @property
    def x(self) -> Points:
        """(d,): where it stands, a copy."""
        return self._x.numpy().copy()

    def step(self, gradient: Points, limit: float) -> None:
        """Move by one estimate (d,), and stay within +-limit in every coordinate."""
        self._x.grad = torch.from_numpy(np.array(gradient, dtype=np.float64))
        self._rule.step()
        self._x.clamp_(-limit, limit)
