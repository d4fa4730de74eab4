"""Options: a dataclass's fields as flags and as lines of a YAML file, with errors that name what was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from dfolora.errors import UserError, unknown


@dataclass(frozen=True)
class Options:
    """What every dataclass of options can do."""

    @classmethod
    def fill(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that were given, with those that follow from them."""
        return dict(values)

    def check(self) -> None:
        """Raise UserError for a value that cannot work."""


Config = TypeVar("Config", bound=Options)


def option(default: Any, text: str) -> Any:
    """A field with its help text."""
    return field(default=default, metadata={"help": text})


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def at_least(config: Any, name: str, least: int) -> None:
    if getattr(config, name) < least:
        raise UserError(f"{flag(name)}: {getattr(config, name)} cannot work; the least is {least}")


def build(kind: type[Config], given: Mapping[str, Any], source: str = "flags") -> Config:
    """A checked config from the values that were given.

    Args:
        kind: a dataclass of options, such as ``TuneConfig``.
        given: field name -> value; names may use dashes.
        source: what the error should name, such as a YAML file.

    Raises:
        UserError: an unknown name, a value of the wrong type, a value that cannot work.
    """
    values = {name.replace("-", "_"): value for name, value in given.items()}
    hints = get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise unknown(source, name, fields)
    typed = {name: _typed(name, value, hints[name]) for name, value in kind.fill(values).items()}
    config = kind(**typed)
    config.check()
    return config


def _typed(name: str, value: Any, hint: type) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, (list, tuple)):  # YAML lists for comma-separated flags
        return ",".join(map(str, value))
    if hint is str and isinstance(value, dict):
        return ",".join(f"{key}={word}" for key, word in value.items())
    try:
        if hint is bool or isinstance(value, (bool, list, dict)) or value is None:
            raise ValueError
        if hint is int and float(value) != int(float(value)):
            raise ValueError
        return int(float(value)) if hint is int else hint(value)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{flag(name)}: {value!r} is not {'a number' if hint is not bool else 'true or false'}"
        ) from error


def read_yaml(path: str, what: str = "--config") -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: the file.
        what: the flag that led to it, for the error.

    Raises:
        UserError: no such file, not YAML, or not a mapping.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{what}: cannot read {path!r} ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what}: {path!r} is not YAML ({' '.join(str(error).split())})") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UserError(f"{what}: {path!r} must hold `name: value` lines")
    return loaded
