"""Options: a frozen dataclass whose fields are keyword arguments, lines of a YAML file and flags at once.

Types, choices and limits stand at the field and are checked when the object is made, whoever makes it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from dfolora.declared import Option
from dfolora.errors import UserError, unknown


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of all settings: converts and checks every field, then calls ``check``."""

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = typed(name, getattr(self, name), hint)
            object.__setattr__(self, name, value)
        for each in dataclasses.fields(self):
            _check_limits(each.name, getattr(self, each.name), each.metadata)
        self.check()

    def check(self) -> None:
        """Raise UserError where settings do not go together."""


def option(
    default: Any,
    text: str,
    *,
    group: str = "",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """Declare an option: its default, help text and the values that it may take.

    Args:
        default: its default.
        text: one line of help.
        group: heading in ``--help`` and in the reference; '': that of the class.
        choices: all values there are.
        least, above, most: limits of a number; ``least`` and ``most`` are allowed themselves.
    """
    limits = {"help": text, "group": group, "choices": choices, "least": least, "above": above, "most": most}
    return field(default=default, metadata=limits)


def hints(kind: type) -> dict[str, Any]:
    """Field name -> its type."""
    found = get_type_hints(kind)
    return {each.name: found[each.name] for each in dataclasses.fields(kind)}


def flag(name: str) -> str:
    """An option's name as a flag: ``dev_every`` to ``--dev-every``."""
    return "--" + name.replace("_", "-")


def typed_options(whose: str, options: Mapping[str, Any], takes: Mapping[str, Option]) -> dict[str, Any]:
    """Convert options, as flags or files have them, to what a class declares; those that are None are left out.

    Args:
        whose: name of the class, for the error.
        options: by name.
        takes: what it declares.

    Raises:
        UserError: an option that it does not take, or a value that is none of its type or choices.
    """
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in takes:
            raise UserError(f"{name}: {whose} has no such option; it takes {', '.join(takes) or 'none'}")
        if value is None:
            continue
        values[name] = typed(name, value, takes[name].type)
        if takes[name].choices and values[name] not in takes[name].choices:
            raise unknown(name, str(value), takes[name].choices)
    return values


def typed(name: str, value: Any, hint: Any) -> Any:
    """Convert a value to its option's type: numbers from text, None only where that is allowed.

    Where both a number and a word are allowed, what is no number stays a word.

    Args:
        name: of the option, for the error.
        value: from Python, YAML or a flag.
        hint: a type, ``type | None``, ``float | str``, or ``Any``: then the value stays what it is.

    Raises:
        UserError: it cannot be that type.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if hint is Any or (value is None and NoneType in kinds):
        return value
    kind = next(each for each in kinds if each is not NoneType)
    if str in kinds and kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{name}: {value!r} is not a mapping")
        return dict(value)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise UserError(f"{name}: {value!r} is not true or false")
    if kind is str:
        if isinstance(value, (dict, list, tuple, set)) or callable(value):
            raise UserError(f"{name}: {value!r} is not text")
        return str(value)
    return _number(name, value, kind)


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        if isinstance(value, (bool, dict, list, tuple)) or value is None:
            raise ValueError
        number = float(value)
        if kind is not int:
            return number
        if number != int(number):
            raise ValueError
        return int(value) if isinstance(value, int) else int(number)
    except (TypeError, ValueError, OverflowError) as error:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{name}: {value!r} is not {what}") from error


def _check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    choices = limits.get("choices")
    if choices and value not in choices:
        raise unknown(name, str(value), choices)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    least, above, most = limits.get("least"), limits.get("above"), limits.get("most")
    if not math.isfinite(value):
        raise UserError(f"{name}: {value} cannot work; give a finite number")
    if least is not None and value < least:
        raise UserError(f"{name}: {value} cannot work; the least is {least}")
    if above is not None and not value > above:
        raise UserError(f"{name}: {value} cannot work; give a number above {above}")
    if most is not None and value > most:
        raise UserError(f"{name}: {value} cannot work; the most is {most}")


def as_text(value: Any) -> Any:
    """A setting as a file can hold it: objects by their name, classes and functions by where they are defined."""
    if isinstance(value, (str, int, float, bool, NoneType)):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_text(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_text(each) for each in value]
    name = getattr(value, "name", None)
    if isinstance(name, str) and name:
        return name
    thing = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    return f"{thing.__module__}:{thing.__qualname__}"
