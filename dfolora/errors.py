"""Errors that a user can mend, each in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line that names the option or file, the value, and what would work; exit code 2."""


def unknown(what: str, value: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered: near misses first, the whole list where it is short.

    Args:
        what: what kind of name it is, such as ``"optimizer"``.
        value: what the user gave; of a long one the beginning is shown.
        known: every name that would work.
    """
    names = sorted(set(known))
    similar = near_misses(value, names)
    if similar:
        hint = "did you mean " + " or ".join(repr(name) for name in similar) + "?"
    elif len(names) <= 20:
        hint = "choose one of " + ", ".join(names)
    else:
        hint = f"there are {len(names)} to choose from, such as " + ", ".join(names[:5])
    return UserError(f"{what}: unknown {value[:100]!r}; {hint}")


def near_misses(value: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that ``value`` may have been meant to be, the likeliest first.

    A name's last part serves (``rte`` for ``superglue/rte``), then a word or the initials of what was written
    (``target-modules`` for ``target``, ``learning-rate`` for ``lr``), then what is spelled alike.
    """
    names = sorted(set(known))
    group, slash, wanted = _plain(value).rpartition("/")
    if slash and any(_plain(name).startswith(group + slash) for name in names):
        names = [name for name in names if _plain(name).startswith(group + slash)]
    parts = {name: _plain(name).rpartition("/")[2] for name in names}
    same = [name for name in names if parts[name] == wanted]
    if same:
        return same[:3]
    words = [word for word in wanted.split("-") if word]
    initials = "".join(word[0] for word in words)
    likely = [name for word in [*words, initials] for name in names if len(words) > 1 and parts[name] == word]
    for part in difflib.get_close_matches(wanted, list(parts.values()), n=3, cutoff=0.6):
        likely += [name for name in names if parts[name] == part]
    return list(dict.fromkeys(likely))[:3]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").strip("- ")
