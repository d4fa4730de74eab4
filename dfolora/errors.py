"""What the user did wrong, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line that names the flag or file, the value, and what would work; exit code 2."""


def unknown(what: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered: near misses first, the whole list where it is short.

    Args:
        what: what kind of name it is, with its flag, e.g. ``"--optimizer"``.
        value: what the user gave.
        known: every name that would work.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(name) for name in near) + "?"
    elif len(names) <= 20:
        hint = "choose one of " + ", ".join(names)
    else:
        hint = f"there are {len(names)} to choose from, such as " + ", ".join(names[:5])
    return UserError(f"{what}: unknown {value!r}; {hint}")
