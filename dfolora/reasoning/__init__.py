"""From a question to an answer by a chat model: predictors by name, what they are told, how their answers are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dfolora.declared import Option, declared
from dfolora.errors import UserError
from dfolora.registry import Registry
from dfolora.settings.options import typed_options

if TYPE_CHECKING:
    from dfolora.reasoning.predictor import Predictor

REGISTRY = Registry(
    "method",
    {
        "zero-shot-cot": ("dfolora.reasoning.fixed:ZeroShotCoT", "think step by step: one instruction, one call"),
        "plan-and-solve": ("dfolora.reasoning.fixed:PlanAndSolve", "make a plan, then carry it out: one call"),
        "self-consistency": (
            "dfolora.reasoning.self_consistency:SelfConsistency",
            "several samples of zero-shot-cot, and a vote",
        ),
        "eot": (
            "dfolora.reasoning.eot:EoT",
            "the model evolves instructions, picks one, rewrites the question, solves (arXiv 2402.05376)",
        ),
    },
    "dfolora.predictors",
)
COMMON = ("asker",)


def options_of(name: str) -> dict[str, Option]:
    """What a predictor takes itself: the keyword parameters of its constructor.

    Raises:
        UserError: an unknown name; near misses are suggested.
    """
    return declared(predictor_class(name), COMMON)


def own_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as flags or files have them, in the types that the predictor declares; as ``typed_options``."""
    return typed_options(name, options, options_of(name))


def predictor_class(name: str) -> type[Predictor]:
    from dfolora.reasoning.predictor import Predictor

    build = REGISTRY.get(name)
    if not (isinstance(build, type) and issubclass(build, Predictor)):
        raise UserError(f"method: {name!r} is {build!r}, not a subclass of Predictor")
    return build


def make_predictor(name: str, asker: Any, options: Mapping[str, Any]) -> Predictor:
    """Build a predictor.

    Args:
        name: one of ``REGISTRY.names()``.
        asker: what it asks its model by.
        options: what it takes itself.

    Raises:
        UserError: an unknown name, an option that it does not take, or a value that cannot work.
    """
    return predictor_class(name)(asker, **own_options(name, options))
