"""Command-line flags made from settings: the dataclasses and the optimizer's class give groups, help and types."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn, get_args

from dfolora.errors import UserError
from dfolora.settings.methods import METHODS
from dfolora.settings.options import Options, flag, hints

MISSING = argparse.SUPPRESS
# In the order in which a newcomer wants to know them.
GROUPS = ("Grid", "Model", "Task and data", "Asking", "Search", "Run", "Benchmark")


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(message + f"; see `{self.prog} --help`")


class Help(argparse.HelpFormatter):
    """Flags and their help in two columns that fit a terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a file of options."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options; flags win")


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which method's options follow."""
    parser.add_argument("--method", metavar="NAME", default=MISSING, help=", ".join(METHODS))
    parser.add_argument("--preset", metavar="NAME", default=MISSING, help="a paper's settings: dfolora presets")


def add_settings(
    parser: argparse.ArgumentParser, kind: type[Options], declared: Mapping[str, Any] | None = None,
    whose: str = "the optimizer and the subspace",
) -> None:  # fmt: skip
    """Add a flag for every field of a settings class and every option that what is plugged in declares.

    Args:
        parser: gets them, in groups.
        kind: the dataclass.
        declared: name -> its ``Option``.
        whose: by whom they are declared.
    """
    types = hints(kind)
    groups: dict[str, Any] = {name: parser.add_argument_group(name) for name in GROUPS}
    for field in dataclasses.fields(kind):
        name, text = field.metadata.get("group", ""), field.metadata.get("help", "")
        if not name:
            continue  # an object, which only Python can give
        group = groups[name]
        _add(group, field.name, text, types[field.name], field.default, field.metadata.get("choices", ()))
    if declared:
        group = parser.add_argument_group(f"Options of {whose}")
        for name, option in declared.items():
            _add(group, name, option.help, option.type, option.default, option.choices)


def _add(group: Any, name: str, text: str, hint: Any, default: Any, choices: Sequence[str]) -> None:
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if default is not None and default is not False and default != "":
        text = f"{text} (default: {default})"
    text = text.replace("%", "%%")
    if bool in kinds:
        action = argparse.BooleanOptionalAction if default else "store_true"
        group.add_argument(flag(name), action=action, default=MISSING, help=text)
        return
    metavar = {int: "N", float: "X"}.get(kinds[0], "TEXT")
    if choices:
        metavar = "{" + ",".join(choice for choice in choices if choice) + "}"
    group.add_argument(flag(name), default=MISSING, metavar=metavar, help=text)


def said(argv: Sequence[str]) -> dict[str, str]:
    """Option name -> what stands behind its flag on a command line, as text."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {word[2:].replace("-", "_"): value for word, value in pairs if word.startswith("--")}


def as_flags(message: str, names: Collection[str]) -> str:
    """Rewrite the option at the start of an error as a flag: ``dev_every: ...`` to ``--dev-every: ...``."""
    name, colon, rest = message.partition(":")
    return flag(name) + colon + rest if colon and name in names else message
