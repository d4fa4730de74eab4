"""From what a user gives as an optimizer, be it a name, a class, a function or an instance, to one that can search."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from dfolora.declared import Option, declared, takes_any
from dfolora.errors import UserError, unknown
from dfolora.optimizers.base import Optimizer
from dfolora.registry import Registry

REGISTRY = Registry(
    "optimizer",
    {
        "cma": ("dfolora.optimizers.cma:CMA", "CMA-ES with a full covariance matrix (pycma)"),
        "es": (
            "dfolora.optimizers.zeroth_order.es:ES",
            "evolution strategy: one-sided probes weighted by their losses, Adam",
        ),
        "fireworks": (
            "dfolora.optimizers.fireworks:Fireworks",
            "fireworks with guiding sparks and loser-out tournament",
        ),
        "fzoo": (
            "dfolora.optimizers.zeroth_order.fzoo:FZOO",
            "one-sided Rademacher probes, steps measured by the spread of their losses",
        ),
        "gauss-newton": (
            "dfolora.optimizers.gauss_newton:GaussNewton",
            "every example's class scores at a few probes, and the step where their linear model's loss is lowest",
        ),
        "greedy": (
            "dfolora.optimizers.zeroth_order.pool:Greedy",
            "the best of a pool of probes, then probed from both sides (MeZO-Greedy)",
        ),
        "guided": (
            "dfolora.optimizers.zeroth_order.pool:Guided",
            "best minus rest of a pool of probes, then probed likewise (MeZO-GV)",
        ),
        "random": (
            "dfolora.optimizers.random:RandomSearch",
            "Gaussian samples around zero, best ever kept: the baseline",
        ),
        "sep-cma": ("dfolora.optimizers.cma:SepCMA", "CMA-ES with a diagonal covariance matrix (pycma)"),
        "spsa": (
            "dfolora.optimizers.zeroth_order.spsa:SPSA",
            "two-sided random probes, Adam or SGD on their estimate (MeZO)",
        ),
        "subzero": (
            "dfolora.optimizers.zeroth_order.spsa:subzero",
            "spsa within a random plane that changes every few steps",
        ),
    },
    "dfolora.optimizers",
)
NEVERGRAD = "nevergrad:"
COMMON = ("dim", "population", "sigma", "seed", "generations", "bound")

Source = str | type[Optimizer] | Callable[..., Optimizer] | Optimizer
"""What a user may give as an optimizer."""


def make_optimizer(
    optimizer: Source,
    dim: int,
    population: int = 20,
    sigma: float = 0.1,
    seed: int = 0,
    generations: int | None = None,
    bound: float | None = None,
    **options: Any,
) -> Optimizer:
    """Build an optimizer. The search starts at zero.

    Args:
        optimizer: a name, one of ``optimizer_names()`` or ``nevergrad:`` and any name of nevergrad's registry; or a
            class; or any function that takes these six arguments by name and returns an optimizer; or an instance
            that has been asked nothing yet, which serves one part of a search and keeps its own settings.
        dim: d, the number of coordinates.
        population: P, candidates per generation.
        sigma: standard deviation of the first generation, per coordinate.
        seed: of this optimizer's private randomness.
        generations: how many generations the run will have, where it is known.
        bound: keep candidates in [-bound, bound] per coordinate; None for an unbounded space.
        options: what it takes beyond these, see ``options_of``; None stands for its own default.

    Raises:
        UserError: an unknown name (with near misses), an argument out of range, an option that it does not take, an
            instance that does not fit.
    """
    if isinstance(optimizer, Optimizer):
        _refuse_options(optimizer, options)
        return _claimed(optimizer, dim)
    build = _builder(optimizer)
    options = {name: value for name, value in options.items() if value is not None}
    _refuse_options(optimizer, options)
    common = {"population": population, "sigma": sigma, "seed": seed, "generations": generations, "bound": bound}
    made = _called(build, {"dim": dim, **common, **options})
    return made if isinstance(optimizer, (str, type)) and isinstance(made, Optimizer) else _claimed(made, dim)


def check_optimizer(
    optimizer: Source,
    population: int = 20,
    sigma: float = 0.1,
    bound: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what ``make_optimizer`` would refuse whatever the dimension, before anything that takes long.

    Args:
        optimizer, population, sigma, bound, options: as for ``make_optimizer``. A function is not called.

    Raises:
        UserError: as ``make_optimizer``.
    """
    values = {name: value for name, value in (options or {}).items() if value is not None}
    _refuse_options(optimizer, values)
    if isinstance(optimizer, Optimizer):
        return
    build = _builder(optimizer)
    fixed = build.keywords if isinstance(build, partial) else {}
    kind = build.func if isinstance(build, partial) else build
    if isinstance(kind, type) and issubclass(kind, Optimizer):
        kind.check(population=population, sigma=sigma, bound=bound, **fixed, **values)


def options_of(optimizer: Source) -> dict[str, Option]:
    """What an optimizer takes beyond what all of them take, by name: the keyword parameters of its constructor.

    Raises:
        UserError: an unknown name (with near misses), or no optimizer at all.
    """
    return {} if isinstance(optimizer, Optimizer) else declared(_builder(optimizer), COMMON)


def wants_of(optimizer: Source) -> str:
    """What an optimizer needs to be told: ``losses``, ``example_losses`` or ``scores``; a function tells nothing."""
    build: Any = optimizer if isinstance(optimizer, Optimizer) else _builder(optimizer)
    return str(getattr(build.func if isinstance(build, partial) else build, "wants", "losses"))


def optimizer_names() -> list[str]:
    """Every registered name, sorted; nevergrad's own come on top, each as ``nevergrad:<Name>``."""
    return REGISTRY.names()


def describe() -> dict[str, str]:
    """One line for each registered name, and one for nevergrad's family."""
    family = {f"{NEVERGRAD}<Name>": "any optimizer of nevergrad's registry that takes a population, e.g. PSO, DE"}
    return {**REGISTRY.describe(), **family}


def _builder(optimizer: Source) -> Callable[..., Optimizer]:
    """What is called to build it."""
    build: Any = optimizer
    if isinstance(optimizer, str):
        if optimizer.startswith(NEVERGRAD):
            from dfolora.optimizers.nevergrad import Nevergrad

            return partial(Nevergrad, algorithm=optimizer.removeprefix(NEVERGRAD))
        if optimizer not in REGISTRY.names():
            raise unknown("optimizer", optimizer, describe())
        build = REGISTRY.get(optimizer)
    if not callable(build) or (isinstance(build, type) and not issubclass(build, Optimizer)):
        raise UserError(
            f"optimizer: {build!r} is none; give a name such as 'cma', a subclass of dfolora.Optimizer, a function "
            "that returns an instance of one, or an instance"
        )
    return build


def _refuse_options(optimizer: Source, options: Mapping[str, Any]) -> None:
    """Refuse an option that it does not take."""
    if options and not isinstance(optimizer, Optimizer) and takes_any(_builder(optimizer)):
        return
    takes = options_of(optimizer)
    label = optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", type(optimizer).__name__)
    for name in options:
        if name not in takes:
            others = takers(name)
            if others:
                raise UserError(f"{name}: {label} does not take it; it is for {', '.join(others)}")
            raise UserError(f"{name}: {label} has no such option; it takes {', '.join(takes) or 'none'}")


def takers(option: str) -> list[str]:
    """The registered optimizers that have an option of that name."""
    taking: list[str] = []
    for name in optimizer_names():
        with suppress(UserError):  # another package's, which cannot be imported
            taking += [name] if option in options_of(name) else []
    return taking


def _called(build: Callable[..., Optimizer], arguments: dict[str, Any]) -> Any:
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise UserError(f"optimizer: {build!r} cannot be called with {', '.join(arguments)} ({error})") from error
    return build(**arguments)


def _claimed(made: Any, dim: int) -> Optimizer:
    """An instance that somebody else has built, if it can serve one part of a search; no other part may have it."""
    if not isinstance(made, Optimizer):
        raise UserError(f"optimizer: a function returned {made!r}, which is no dfolora.Optimizer")
    name = type(made).__name__
    if made.dim != dim:
        raise UserError(f"optimizer: this {name} searches {made.dim} numbers where there are {dim}; give its class")
    if made.started:
        raise UserError(f"optimizer: this {name} has been asked already; give a new one, or its class")
    if made.claimed:
        raise UserError(f"optimizer: this {name} serves another part already; give its class, which serves any number")
    made.claimed = True
    return made
