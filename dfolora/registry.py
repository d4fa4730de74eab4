"""Things that a user picks by name: built in, registered by a program, or brought by an installed package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from dfolora.errors import UserError, unknown


class Registry:
    """The names of one kind of thing, such as optimizers, and what they stand for.

    A name is looked up among ours, then among those registered by ``add``, then among the entry points of installed
    packages. Nothing is imported before it is asked for.

    Args:
        kind: what the things are, for errors: ``"optimizer"``.
        ours: name -> (``"module:attribute"``, what it is in one line).
        group: name of the entry point group that other packages use, such as ``"dfolora.optimizers"``.
    """

    def __init__(self, kind: str, ours: Mapping[str, tuple[str, str]], group: str) -> None:
        self.kind = kind
        self.group = group
        self._ours = dict(ours)
        self._added: dict[str, tuple[Any, str]] = {}

    def add(self, name: str, thing: Any, about: str = "") -> None:
        """Register a thing under a name for the rest of this process.

        Raises:
            UserError: the name is taken by one of ours.
        """
        if name in self._ours:
            raise UserError(f"register: the {self.kind} {name!r} is built in; choose another name")
        self._added[name] = thing, about or first_line(thing)

    def get(self, name: str) -> Any:
        """The thing of that name.

        Raises:
            UserError: there is none; near misses are suggested.
        """
        if name in self._ours:
            return load(self._ours[name][0])
        if name in self._added:
            return self._added[name][0]
        found = {point.name: point for point in entry_points(group=self.group)}
        if name not in found:
            raise unknown(self.kind, name, self.names())
        try:
            return found[name].load()
        except Exception as error:  # another package's code, which may raise anything
            raise UserError(
                f"{self.kind}: {name!r} is brought by {found[name].value!r}, which cannot be imported ({error})"
            ) from error

    def names(self) -> list[str]:
        """Every known name, sorted."""
        return sorted({*self._ours, *self._added, *(point.name for point in entry_points(group=self.group))})

    def builtin(self) -> list[str]:
        """The names that the package itself brings."""
        return list(self._ours)

    def describe(self) -> dict[str, str]:
        """Name -> description in one line; for things of other packages the place, since nothing is imported."""
        lines = {point.name: f"from {point.value}" for point in entry_points(group=self.group)}
        lines |= {name: about for name, (_, about) in self._added.items()}
        lines |= {name: about for name, (_, about) in self._ours.items()}
        return dict(sorted(lines.items()))


def load(place: str) -> Any:
    """The object at ``"module:attribute"``."""
    module, attribute = place.split(":")
    return getattr(importlib.import_module(module), attribute)


def first_line(thing: Any) -> str:
    """The first line of an object's docstring; '' where it has none."""
    return (getattr(thing, "__doc__", None) or "").strip().split("\n")[0]
