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
    from dfolora.evolution.alternate import alternate
    from dfolora.evolution.run import evolve
    from dfolora.models.load import load as load_model
    from dfolora.optimizers import Optimizer
    from dfolora.question import Question, QuestionSet
    from dfolora.reasoning.opening import prompt
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
    "prompt": "reasoning.opening",
    "evolve": "evolution.run",
    "alternate": "evolution.alternate",
    "register": "registration",
    "load_model": "models.load:load",
    "Run": "runs.folder",
    "Listener": "runs.listener",
    "Task": "task",
    "Example": "task",
    "Prompt": "task",
    "Question": "question",
    "QuestionSet": "question",
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
    "Question",
    "QuestionSet",
    "Run",
    "Subspace",
    "Task",
    "UserError",
    "alternate",
    "baseline",
    "compare",
    "evaluate",
    "evolve",
    "load_model",
    "problem",
    "prompt",
    "register",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
