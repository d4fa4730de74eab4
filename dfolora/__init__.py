"""Tune language models without gradients: ``tune``, ``evaluate``, and what they are given."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfolora.api import evaluate, problem, tune
    from dfolora.baseline_run import baseline
    from dfolora.baselines.base import Baseline
    from dfolora.comparison.compare import compare
    from dfolora.errors import UserError
    from dfolora.models.load import load as load_model
    from dfolora.optimizers import Optimizer
    from dfolora.registration import register
    from dfolora.runs.folder import Run
    from dfolora.runs.listener import Listener
    from dfolora.subspaces import Subspace
    from dfolora.task import Example, Prompt, Task

__version__ = "0.2.0"

# Imported when first used: `dfolora tasks`, or a typo, should not wait for torch and transformers.
_PLACES = {
    "tune": "api",
    "evaluate": "api",
    "problem": "api",
    "baseline": "baseline_run",
    "Baseline": "baselines.base",
    "compare": "comparison.compare",
    "register": "registration",
    "load_model": "models.load:load",
    "Run": "runs.folder",
    "Listener": "runs.listener",
    "Task": "task",
    "Example": "task",
    "Prompt": "task",
    "Optimizer": "optimizers",
    "Subspace": "subspaces",
    "UserError": "errors",
}
__all__ = [
    "Baseline",
    "Example",
    "Listener",
    "Optimizer",
    "Prompt",
    "Run",
    "Subspace",
    "Task",
    "UserError",
    "baseline",
    "compare",
    "evaluate",
    "load_model",
    "problem",
    "register",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
