"""HOW to search: gradient-free optimizers by name, behind one ask and tell. They know nothing of models.

>>> search = make_optimizer("cma", dim=500, population=20, sigma=0.1, seed=0)
>>> for _ in range(100):
...     z = search.ask()                 # (20, 500) float32
...     search.tell((z - 1).square().sum(1))
>>> z = search.incumbent()               # (500,)
"""

from __future__ import annotations

from dfolora.declared import Option
from dfolora.optimizers.base import Optimizer
from dfolora.optimizers.evaluation import Evaluation
from dfolora.optimizers.make import (
    REGISTRY,
    check_optimizer,
    describe,
    make_optimizer,
    optimizer_names,
    options_of,
    takers,
    wants_of,
)

__all__ = [
    "REGISTRY",
    "Evaluation",
    "Optimizer",
    "Option",
    "check_optimizer",
    "describe",
    "make_optimizer",
    "optimizer_names",
    "options_of",
    "takers",
    "wants_of",
]
