"""Options that a class declares: the keyword parameters of its constructor and of its parents'.

>>> class Hill(Optimizer):
...     def __init__(self, *arguments, decay: Annotated[float, "share of the step kept"] = 0.9, **common): ...
>>> declared(Hill, common=("dim", "population", "sigma", "seed", "generations", "bound"))
{'decay': Option(type=<class 'float'>, default=0.9, help='share of the step kept')}
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from dfolora.errors import UserError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Option:
    """An option: its type, default, help text and choices.

    Attributes:
        type: what its value is, such as float; where None stands for "the default", without the None.
        default: its value where nothing is given.
        help: what it is, in one line; '' where the class does not say.
        choices: every value that works, where there are few: a tuple beside the help, ``Annotated[str, "...", NAMES]``.
    """

    type: Any
    default: Any
    help: str
    choices: tuple[Any, ...] = ()


def declared(build: Callable[..., Any], common: Collection[str]) -> dict[str, Option]:
    """Read the options of a class, of a ``functools.partial`` (those it does not fix) or of any other callable.

    Args:
        build: what makes the object.
        common: parameters that are no options, since everything of this kind takes them.

    Raises:
        UserError: an annotation names something that its module does not have.
    """
    if isinstance(build, functools.partial):
        return {name: option for name, option in declared(build.func, common).items() if name not in build.keywords}
    options: dict[str, Option] = {}
    for parameters in _signatures(build):
        for parameter in parameters:
            if parameter.kind not in _VARIADIC and parameter.name not in common:
                options.setdefault(parameter.name, _option(parameter))
    return options


def takes_any(build: Callable[..., Any]) -> bool:
    """Whether it takes keyword arguments of any name: a function with ``**options``, but never a class."""
    if isinstance(build, functools.partial):
        return takes_any(build.func)
    return not isinstance(build, type) and any(p.kind is p.VAR_KEYWORD for p in next(_signatures(build)))


def _signatures(build: Callable[..., Any]) -> Iterator[list[inspect.Parameter]]:
    """The parameters of a callable; of a class those of its constructor and, where it passes on, its parents'."""
    if not isinstance(build, type):
        yield _parameters(build)
        return
    for kind in build.__mro__:
        if "__init__" in vars(kind) and kind is not object:
            parameters = _parameters(vars(kind)["__init__"])[1:]
            yield parameters
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                return


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as error:
        raise UserError(f"options: those of {function.__qualname__} cannot be read ({error})") from error


def _option(parameter: inspect.Parameter) -> Option:
    hint, text, choices = parameter.annotation, "", ()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        text = next((note for note in notes if isinstance(note, str)), "")
        choices = next((note for note in notes if isinstance(note, tuple)), ())
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        hint = functools.reduce(operator.or_, kinds)
    default = None if parameter.default is parameter.empty else parameter.default
    if hint is parameter.empty:
        hint = type(default) if default is not None else typing.Any
    return Option(hint, default, text, choices)
