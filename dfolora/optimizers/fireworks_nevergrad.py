"""Fireworks for nevergrad's users: importing this file adds ``Fireworks`` to nevergrad's own registry.

>>> import nevergrad as ng
>>> import dfolora.optimizers.fireworks_nevergrad
>>> search = ng.optimizers.registry["Fireworks"](parametrization=10, budget=400, num_workers=20)
>>> best = search.minimize(lambda x: ((x - 0.5) ** 2).sum())
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from nevergrad.optimization import base

from dfolora.optimizers import fireworks

_POPULATION = 20


@base.registry.register
class Fireworks(base.Optimizer):
    """``dfolora.optimizers.fireworks.Fireworks`` on nevergrad's standardised data, one candidate at a time.

    A generation is max(20, num_workers) candidates and ends when all of them are told. Whoever asks for more before
    that gets sparks around the best firework; these, and points told without being asked, count for the
    recommendation (the best point of the archive) but do not steer.

    Args:
        parametrization: an int or a nevergrad parametrization; bounds are its own business.
        budget: evaluations; sets the end that the tournament plans for. None: see the wrapped class.
        num_workers: candidates evaluated at a time.
    """

    def __init__(self, parametrization: Any, budget: int | None = None, num_workers: int = 1) -> None:
        super().__init__(parametrization, budget=budget, num_workers=num_workers)
        self._population = max(_POPULATION, num_workers)
        self._core: fireworks.Fireworks | None = None
        self._waiting: deque[tuple[int, np.ndarray]] = deque()
        self._places: dict[str, int] = {}
        self._points = np.zeros((0, self.dimension))
        self._values = np.zeros(0)
        self._untold = 0

    def _search(self) -> fireworks.Fireworks:
        # At the first ask, not before: nevergrad's users seed the parametrization after building the optimizer.
        if self._core is None:
            generations = None if self.budget is None else max(1, -(-self.budget // self._population))
            self._core = fireworks.Fireworks(self.dimension, self._population, sigma=1.0, generations=generations)
            self._core.rng = self._rng
        return self._core

    def _internal_ask_candidate(self) -> Any:
        core = self._search()
        if not self._untold:
            self._points = core._ask()
            self._values = np.zeros(len(self._points))
            self._waiting = deque(enumerate(self._points))
            self._untold = len(self._points)
        if not self._waiting:
            return self._child(core.extra_spark())
        place, point = self._waiting.popleft()
        candidate = self._child(point)
        self._places[candidate.uid] = place
        return candidate

    def _child(self, point: np.ndarray) -> Any:
        return self.parametrization.spawn_child().set_standardized_data(point)

    def _internal_tell_candidate(self, candidate: Any, loss: float) -> None:
        place = self._places.pop(candidate.uid, None)
        if place is None:
            return
        # Bounds may have moved the point on its way out: what counts is where it was evaluated.
        self._points[place] = candidate.get_standardized_data(reference=self.parametrization)
        self._values[place] = loss
        self._untold -= 1
        if not self._untold:
            self._search()._tell(self._points, self._values)

    def _internal_tell_not_asked(self, candidate: Any, loss: float) -> None:
        pass
