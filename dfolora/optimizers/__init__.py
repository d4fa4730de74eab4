"""HOW to search: gradient-free optimizers by name, behind one ask and tell. They know nothing of models.

>>> search = make_optimizer("cma", dim=500, population=20, sigma=0.1, seed=0)
>>> for _ in range(100):
...     z = search.ask()                 # (20, 500) float32
...     search.tell((z - 1).square().sum(1))
>>> z = search.incumbent()               # (500,)
"""

from __future__ import annotations

import importlib
from typing import Any

from dfolora.errors import unknown
from dfolora.optimizers.base import Optimizer

__all__ = ["Optimizer", "describe", "make_optimizer", "optimizer_names", "option_names"]

# Targets are imported when first used: a backend costs up to seconds and nobody uses all of them.
_REGISTRY: dict[str, tuple[str, str]] = {
    "cma": ("cma:CMA", "CMA-ES with a full covariance matrix (pycma)"),
    "es": ("zeroth_order.es:ES", "evolution strategy: one-sided probes weighted by their losses, Adam"),
    "fireworks": ("fireworks:Fireworks", "fireworks with guiding sparks and loser-out tournament"),
    "fzoo": ("zeroth_order.fzoo:FZOO", "one-sided Rademacher probes, steps measured by the spread of their losses"),
    "greedy": ("zeroth_order.pool:Greedy", "the best of a pool of probes, then probed from both sides (MeZO-Greedy)"),
    "guided": ("zeroth_order.pool:Guided", "best minus rest of a pool of probes, then probed likewise (MeZO-GV)"),
    "random": ("random:RandomSearch", "Gaussian samples around zero, best ever kept: the baseline"),
    "sep-cma": ("cma:SepCMA", "CMA-ES with a diagonal covariance matrix (pycma)"),
    "spsa": ("zeroth_order.spsa:SPSA", "two-sided random probes, Adam or SGD on their estimate (MeZO)"),
    "subzero": ("zeroth_order.spsa:SubZero", "spsa within a random plane that changes every few steps"),
}
_FAMILY = "nevergrad:"
_FAMILY_TARGET = "nevergrad:Nevergrad"


def make_optimizer(
    name: str,
    dim: int,
    population: int = 20,
    sigma: float = 0.1,
    seed: int = 0,
    generations: int | None = None,
    bound: float | None = None,
    **options: Any,
) -> Optimizer:
    """Build an optimizer by name. The search starts at zero.

    Args:
        name: one of ``optimizer_names()``, or ``nevergrad:`` and any name of nevergrad's registry.
        dim: d, the number of coordinates.
        population: P, candidates per generation.
        sigma: standard deviation of the first generation, per coordinate.
        seed: of this optimizer's private randomness.
        generations: how many generations the run will have, where it is known.
        bound: keep candidates in [-bound, bound] per coordinate; None for an unbounded space.
        options: what the class of that name takes beyond these, e.g. ``incumbent="best"`` for ``cma``.

    Raises:
        UserError: an unknown name (with near misses) or an argument out of range.
        TypeError: an option that the class does not have.
    """
    build = _class_of(name)
    if name.startswith(_FAMILY):
        options["algorithm"] = name.removeprefix(_FAMILY)
    return build(dim, population, sigma, seed, generations, bound, **options)


def option_names(name: str) -> tuple[str, ...]:
    """What the optimizer of that name takes beyond what all of them take, and a user may set.

    Raises:
        UserError: an unknown name (with near misses).
    """
    return _class_of(name).options


def _class_of(name: str) -> type[Optimizer]:
    if name not in _REGISTRY and not name.startswith(_FAMILY):
        raise unknown("--optimizer", name, describe())
    module, attribute = (_REGISTRY[name][0] if name in _REGISTRY else _FAMILY_TARGET).split(":")
    found: type[Optimizer] = getattr(importlib.import_module(f"dfolora.optimizers.{module}"), attribute)
    return found


def optimizer_names() -> list[str]:
    """Every registered name, sorted; nevergrad's own come on top, each as ``nevergrad:<Name>``."""
    return sorted(_REGISTRY)


def describe() -> dict[str, str]:
    """One line for each registered name, and one for nevergrad's family."""
    lines = {name: text for name, (_, text) in sorted(_REGISTRY.items())}
    return {**lines, f"{_FAMILY}<Name>": "any optimizer of nevergrad's registry that takes a population, e.g. PSO, DE"}
