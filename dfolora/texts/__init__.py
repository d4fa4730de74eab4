"""Instructions as texts: how a language model varies them, and optimizers that search among them, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dfolora.declared import Option, declared
from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.settings.options import typed

if TYPE_CHECKING:
    from dfolora.chat import Chat
    from dfolora.texts.optimizer import TextOptimizer

REGISTRY = Registry(
    "evolve",
    {
        "evoprompt-ga": (
            "dfolora.texts.evoprompt:GeneticAlgorithm",
            "parents by their scores, crossover and mutation, the best stay (arXiv 2309.08532)",
        ),
        "evoprompt-de": (
            "dfolora.texts.evoprompt:DifferentialEvolution",
            "what differs in two texts is changed and put into the best (arXiv 2309.08532)",
        ),
        "gepa": ("dfolora.texts.gepa:Gepa", "reads what went wrong and rewrites (arXiv 2507.19457); dfolora[gepa]"),
        "random": ("dfolora.texts.random:RandomRewordings", "rewordings of the first texts, for comparison"),
    },
    "dfolora.text_optimizers",
)
COMMON = ("chat", "seeds", "seed")


def text_options(name: str) -> dict[str, Option]:
    """What a text optimizer takes itself: the keyword parameters of its constructor.

    Raises:
        UserError: an unknown name; near misses are suggested.
    """
    return declared(_class(name), COMMON)


def make_text_optimizer(
    name: str, chat: Chat, seeds: Sequence[str], seed: int = 0, options: Mapping[str, Any] | None = None
) -> TextOptimizer:
    """Build a text optimizer.

    Args:
        name: one of ``REGISTRY.names()``.
        chat: the model that varies texts.
        seeds: the texts to begin with, one at least.
        seed: of all that is drawn.
        options: what it takes itself; None stands for its own default.

    Raises:
        UserError: an unknown name, an option that it does not take, or a value that cannot work.
    """
    kind, takes = _class(name), text_options(name)
    values: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if key not in takes:
            raise unknown("option", key, takes)
        if value is not None:
            values[key] = typed(key, value, takes[key].type)
    return kind(chat, seeds, seed, **values)


def _class(name: str) -> type[TextOptimizer]:
    from dfolora.texts.optimizer import TextOptimizer

    found = REGISTRY.get(name)
    if not (isinstance(found, type) and issubclass(found, TextOptimizer)):
        raise UserError(f"evolve: {name!r} is {found!r}, not a subclass of TextOptimizer")
    return found
