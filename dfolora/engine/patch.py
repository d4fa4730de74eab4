"""Replace the forward of modules for the length of a ``with`` block. The model's classes and code stay untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


class Stop(Exception):
    """Raised inside a forward once everything wanted has been computed; carries nothing."""


@contextmanager
def patched(replacements: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Set ``module.forward`` on each instance and put back what was there, whatever happens inside.

    Args:
        replacements: (module, new forward); where the new one needs the old, it took ``module.forward`` beforehand.
    """
    undo: list[tuple[nn.Module, Forward | None]] = []
    try:
        for module, forward in replacements:
            undo.append((module, module.__dict__.get("forward")))
            module.forward = forward
        yield
    finally:
        for module, before in reversed(undo):
            if before is None:
                del module.__dict__["forward"]
            else:
                module.forward = before
