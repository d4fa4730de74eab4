"""Tune low-rank adapters of any Hugging Face model without gradients."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfolora.adapter import Adapter as Adapter
    from dfolora.adapter import attach as attach
    from dfolora.adapter import load as load_adapter  # noqa: F401
    from dfolora.config import EvaluateConfig as EvaluateConfig
    from dfolora.config import TuneConfig as TuneConfig
    from dfolora.engine import Engine as Engine
    from dfolora.engine import Rows as Rows
    from dfolora.errors import UserError as UserError
    from dfolora.first_order import FirstOrder as FirstOrder
    from dfolora.full_parameter import FullParameter as FullParameter
    from dfolora.full_parameter import Log as Log
    from dfolora.full_parameter import rows_loss as rows_loss
    from dfolora.hybrid import Hybrid as Hybrid
    from dfolora.jobs import evaluate as evaluate
    from dfolora.jobs import tune as tune
    from dfolora.models import LanguageModel as LanguageModel
    from dfolora.models import load as load_model  # noqa: F401
    from dfolora.optimizers import Optimizer as Optimizer
    from dfolora.optimizers import make_optimizer as make_optimizer
    from dfolora.run import Run as Run
    from dfolora.scoring import Scorer as Scorer
    from dfolora.task import Example as Example
    from dfolora.task import Prompt as Prompt
    from dfolora.task import Task as Task
    from dfolora.tuner import Tuner as Tuner

# Imported when first used: `dfolora tasks`, or a typo, should not wait for torch and transformers.
_PLACES = {
    "Adapter": "adapter",
    "attach": "adapter",
    "load_adapter": "adapter:load",
    "EvaluateConfig": "config",
    "TuneConfig": "config",
    "Engine": "engine",
    "Rows": "engine",
    "UserError": "errors",
    "FirstOrder": "first_order",
    "Hybrid": "hybrid",
    "FullParameter": "full_parameter",
    "Log": "full_parameter",
    "rows_loss": "full_parameter",
    "evaluate": "jobs",
    "tune": "jobs",
    "LanguageModel": "models",
    "load_model": "models:load",
    "Optimizer": "optimizers",
    "make_optimizer": "optimizers",
    "Run": "run",
    "Scorer": "scoring",
    "Example": "task",
    "Prompt": "task",
    "Task": "task",
    "Tuner": "tuner",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
