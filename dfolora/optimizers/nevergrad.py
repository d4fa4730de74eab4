"""Every optimizer of nevergrad's registry, by name, that can be asked for a whole population at a time."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dfolora.errors import UserError, unknown
from dfolora.optimizers.base import Optimizer, Points
from dfolora.optimizers.private_rng import PrivateRng
from dfolora.optimizers.random import RandomSearch

with PrivateRng(0).swapped():
    # nevergrad draws from the global generators while it is imported, some of its registered settings among it: here
    # those come out the same in every process (unless somebody imported it before).
    import nevergrad as ng
    from nevergrad.optimization import recaster
    from nevergrad.optimization.base import Optimizer as Backend

    import dfolora.optimizers.fireworks_nevergrad  # noqa: F401  registers Fireworks there


class _Background(recaster._MessagingThread):
    """The thread of a method that works one candidate at a time; it waits for losses, here not beyond the process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.daemon = True


recaster._MessagingThread = _Background

PREFIX = "nevergrad:"
_GENERATIONS = 1000  # how many generations a backend plans for where the run's length is not known
_LARGE = 1e20  # nevergrad itself cuts losses at 5e20, with a warning for each


class Nevergrad(Optimizer):
    """A nevergrad optimizer behind ask and tell.

    It is given ``num_workers = population`` and a budget of ``population * generations``; past its budget it goes on
    where it can. Many backends draw from numpy's or Python's global generators, so each instance keeps a private state
    of both and swaps it in around every call.

    A generation has P candidates, or fewer where a backend needs losses before it can go on: its CMA-ES with a
    population of 22 (its least in d = 500) answers a P of 20 with generations of 20 and, now and then, a few.

    nevergrad accepts losses only for its own candidate objects, so it is told the float64 points that it made, not
    their float32 roundings.

    Args:
        dim, population, sigma, seed, generations, bound: as for every optimizer. ``sigma`` is the mutation's standard
            deviation, from which backends derive their own first step.
        algorithm: a name of nevergrad's registry, such as ``PSO``; also ``Fireworks``.

    Raises:
        UserError: no such name, or it cannot serve: it works one candidate at a time, in a thread of its own (where
            its draws could not be kept private), needs a package that is missing, or fails in a rehearsal of three
            generations.
    """

    touches_globals = True  # the global generators

    def __init__(self, *arguments: Any, algorithm: str = "NGOpt", **common: Any) -> None:
        super().__init__(*arguments, **common)
        _refuse_sequential(algorithm, self.population)
        self._algorithm = algorithm
        self._global = PrivateRng(self.seed)
        self._candidates: list[Any] = []
        self._rehearse()
        self._backend = self._build(self.rng)

    @classmethod
    def check(cls, population: int = 20, sigma: float = 0.1, bound: float | None = None, **options: Any) -> None:
        """Refuse what can work in no space. Nothing is built: a backend may serve in 500 dimensions and not in 100."""
        RandomSearch.check(population, sigma, bound)
        _refuse_sequential(options["algorithm"], population)

    def _build(self, rng: np.random.RandomState) -> Backend:
        budget = self.population * (self.generations or _GENERATIONS)
        with self._calling():
            space = ng.p.Array(shape=(self.dim,))
            if self.bound is not None:
                space.set_bounds(-self.bound, self.bound)
            space.set_mutation(sigma=self.sigma)
            space.random_state = rng
            return ng.optimizers.registry[self._algorithm](space, budget=budget, num_workers=self.population)

    def _rehearse(self) -> None:
        """Three generations of a throwaway twin, so that what cannot work is refused now and not after a night."""
        rng, rehearsal = np.random.RandomState(0), self._global
        self._global = PrivateRng(0)
        before = threading.enumerate()
        try:
            backend = self._build(rng)
            for _ in range(3):
                candidates = self._candidates_of(backend)
                with self._calling():
                    for candidate in candidates:
                        backend.tell(candidate, float(rng.uniform()))
            with self._calling():
                backend.recommend()
            reason = "it hands the search to a method that works one candidate at a time" if _recasts(backend) else ""
        except Exception as error:  # whatever it is, the answer is the same: this one cannot serve
            cause = error.__cause__ or error
            reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
        finally:
            self._global = rehearsal
            for thread in threading.enumerate():
                if isinstance(thread, _Background) and thread not in before:
                    thread.stop()
        if reason:
            raise UserError(
                f"optimizer: {PREFIX}{self._algorithm} cannot serve a population of {self.population} in {self.dim} "
                f"dimensions ({reason}); choose another, such as {PREFIX}PSO, {PREFIX}DE or cma"
            )

    @contextmanager
    def _calling(self) -> Iterator[None]:
        with self._global.swapped(), warnings.catch_warnings(), np.errstate(all="ignore"):
            # Remarks on settings that are ours by contract (budget, workers, float32 or penalised losses).
            warnings.filterwarnings("ignore", module=r"(nevergrad|cma)\b")
            yield

    def _candidates_of(self, backend: Backend) -> list[Any]:
        candidates: list[Any] = []
        with self._calling():
            while len(candidates) < self.population:
                try:
                    candidates.append(backend.ask())
                except Exception as error:
                    if candidates:
                        break  # it needs the losses of these first
                    raise RuntimeError(
                        f"{PREFIX}{self._algorithm} cannot go on after {backend.num_ask} of the {backend.budget} "
                        f"candidates that it was told to plan for: {error}"
                    ) from error
        return candidates

    def _ask(self) -> Points:
        self._candidates = self._candidates_of(self._backend)
        return np.stack([candidate.value for candidate in self._candidates])

    def _tell(self, points: Points, losses: Points) -> None:
        with self._calling():
            for candidate, loss in zip(self._candidates, losses, strict=True):
                self._backend.tell(candidate, float(min(loss, _LARGE)))

    def _incumbent(self) -> Points:
        with self._calling():
            value = np.asarray(self._backend.recommend().value, dtype=np.float64)
        return value if np.isfinite(value).all() else self.best


def _refuse_sequential(algorithm: str, population: int) -> None:
    """Refuse an unknown algorithm, and one that works one candidate at a time."""
    if algorithm not in ng.optimizers.registry:
        raise unknown("optimizer", PREFIX + algorithm, (PREFIX + name for name in ng.optimizers.registry))
    entry = ng.optimizers.registry[algorithm]
    if entry.recast or (entry.no_parallelization and population > 1):
        raise UserError(
            f"optimizer: {PREFIX}{algorithm} works one candidate at a time, not a population of {population}; "
            f"choose a population method such as {PREFIX}PSO, {PREFIX}DE or cma"
        )


def _recasts(backend: Backend) -> bool:
    """Whether it, or one that it delegates to, runs a sequential method in a background thread."""
    parts = [part for value in vars(backend).values() for part in (value if isinstance(value, list) else [value])]
    return backend.recast or any(_recasts(part) for part in parts if isinstance(part, Backend))
