"""Tune low-rank adapters of any Hugging Face model without gradients."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfolora.api import evaluate as evaluate
    from dfolora.api import tune as tune
    from dfolora.engine import Engine as Engine
    from dfolora.engine import Rows as Rows
    from dfolora.errors import UserError as UserError
    from dfolora.methods.first_order import FirstOrder as FirstOrder
    from dfolora.methods.full_parameter import FullParameter as FullParameter
    from dfolora.methods.full_parameter import Log as Log
    from dfolora.methods.full_parameter import rows_loss as rows_loss
    from dfolora.methods.hybrid import Hybrid as Hybrid
    from dfolora.methods.search import Tuner as Tuner
    from dfolora.models.adapter import Adapter as Adapter
    from dfolora.models.adapter import attach as attach
    from dfolora.models.adapter import load as load_adapter  # noqa: F401
    from dfolora.models.load import LanguageModel as LanguageModel
    from dfolora.models.load import load as load_model  # noqa: F401
    from dfolora.optimizers import Optimizer as Optimizer
    from dfolora.optimizers import make_optimizer as make_optimizer
    from dfolora.problems.encode import PromptEncoder as PromptEncoder
    from dfolora.runs.folder import Run as Run
    from dfolora.settings.config import EvaluateConfig as EvaluateConfig
    from dfolora.settings.config import TuneConfig as TuneConfig
    from dfolora.task import Example as Example
    from dfolora.task import Prompt as Prompt
    from dfolora.task import Task as Task

# Imported when first used: `dfolora tasks`, or a typo, should not wait for torch and transformers.
_PLACES = {
    "Adapter": "models.adapter",
    "attach": "models.adapter",
    "load_adapter": "models.adapter:load",
    "EvaluateConfig": "settings.config",
    "TuneConfig": "settings.config",
    "Engine": "engine",
    "Rows": "engine",
    "UserError": "errors",
    "FirstOrder": "methods.first_order",
    "Hybrid": "methods.hybrid",
    "FullParameter": "methods.full_parameter",
    "Log": "methods.full_parameter",
    "rows_loss": "methods.full_parameter",
    "evaluate": "api",
    "tune": "api",
    "LanguageModel": "models.load",
    "load_model": "models.load:load",
    "Optimizer": "optimizers",
    "make_optimizer": "optimizers",
    "Run": "runs.folder",
    "PromptEncoder": "problems.encode",
    "Example": "task",
    "Prompt": "task",
    "Task": "task",
    "Tuner": "methods.search",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute or name)
