"""Entries of a grid: a model, a task or a method with a label and options of its own."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfolora.errors import UserError, unknown
from dfolora.settings.methods import METHODS
from dfolora.settings.presets import PRESETS

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Entry:
    """A line of a grid.

    Attributes:
        label: what the tables call it.
        options: what it tells its runs.
        tried: of a method: option -> values of which the dev set chooses one.
        baseline: of a method: the name of a baseline; '' for what ``tune`` does.
    """

    label: str
    options: Mapping[str, Any]
    tried: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    baseline: str = ""

    @property
    def folder(self) -> str:
        """The label as the name of a folder."""
        name = re.sub(r"[^\w.+]+", "-", self.label).strip("-.")
        if name and len(name) <= 80:
            return name
        return f"{name[:60]}-{hashlib.blake2b(self.label.encode(), digest_size=4).hexdigest()}".lstrip("-")

    def choices(self) -> list[dict[str, Any]]:
        """Every combination of what is tried; one empty choice where nothing is."""
        names = list(self.tried)
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*self.tried.values())]


def entries(what: str, given: Any) -> list[Entry]:
    """Read the ``models``, ``tasks`` or ``methods`` of a grid.

    Args:
        what: which of them.
        given: names separated by commas, or a list of names and of mappings: ``{task: NAME, label: ..., OPTION: ...}``.

    Raises:
        UserError: none, one that is given twice, or a mapping that names nothing.
    """
    key = what.removesuffix("s")
    items = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(items, (list, tuple)):
        raise UserError(f"{what}: {items!r} is neither names separated by commas nor a list")
    found = [_entry(what, key, item) for item in items if item not in ("", None)]
    for name, get in (("label", lambda each: each.label), ("folder", lambda each: each.folder)):
        seen: set[str] = set()
        for each in found:
            if get(each) in seen:
                raise UserError(f"{what}: two have the {name} {get(each)!r}; give one of them another label")
            seen.add(get(each))
    return found


def _entry(what: str, key: str, item: Any) -> Entry:
    if not isinstance(item, (str, Mapping)):
        raise UserError(f"{what}: {item!r} is no name; an object cannot be sent to the process of a run")
    values = {"label": item, key: item} if isinstance(item, str) else {k.replace("-", "_"): v for k, v in item.items()}
    name = values.pop(key, "")
    if not isinstance(name, str):
        raise UserError(f"{what}: {name!r} is no name; an object cannot be sent to the process of a run")
    label = str(values.pop("label", "") or name or Path(str(values.get("train_file", ""))).stem)
    if key == "method":
        return _method(label, name, values)
    if not name and not values.get("train_file"):
        raise UserError(f"{what}: {dict(item)!r} names no {key}")  # type: ignore[arg-type]
    if key == "model":
        label = Path(label).name if isinstance(item, str) else label
    return Entry(label, {key: name, **values} if name else values)


def _method(label: str, words: str, values: dict[str, Any]) -> Entry:
    """A method's name and flags: ``"guided --population 4 --try lr=0.1/0.3"``."""
    try:
        name, *rest = shlex.split(words)
    except ValueError as error:
        raise UserError(f"methods: {words!r} cannot be read: {error}") from error
    tried = values.pop("try", None) or {}
    if not isinstance(tried, Mapping) or not all(isinstance(each, (list, tuple)) and each for each in tried.values()):
        raise UserError(f"methods: try of {label!r} must be a mapping of options to lists of values, not {tried!r}")
    tried = {option.replace("-", "_"): list(each) for option, each in tried.items()}
    options: dict[str, Any] = {}
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"methods: {word!r} in {words!r} is no flag; flags begin with --")
        flag, equals, value = word[2:].partition("=")
        flag = flag.replace("-", "_")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else True  # type: ignore[assignment]
        if flag != "try":
            options[flag] = value
            continue
        option, equals, choices = str(value).partition("=")
        if not equals or not choices:
            raise UserError(f"methods: --try {value} in {words!r} names no values; write --try lr=0.03/0.1")
        tried[option.replace("-", "_")] = choices.split("/")
    options |= values
    if name in baselines():
        return Entry(label, options, tried, baseline=name)
    return Entry(label, {**_meaning(name), **options}, tried)


def _meaning(name: str) -> dict[str, Any]:
    """What a method's name tells ``tune``."""
    from dfolora.optimizers import optimizer_names
    from dfolora.optimizers.make import NEVERGRAD

    if name == "default":
        return {}
    if name in METHODS:
        return {"method": name}
    if name in PRESETS:
        return {"preset": name}
    if name in optimizer_names() or name.startswith(NEVERGRAD):
        return {"optimizer": name}
    raise unknown("methods", name, {"default", *METHODS, *PRESETS, *optimizer_names(), *baselines()})


def baselines() -> list[str]:
    """Names of the baselines, without the model as it is, which every table has."""
    from dfolora.baselines import REGISTRY

    return [name for name in REGISTRY.names() if name != ZERO_SHOT]


def seeds_of(given: Any) -> list[int]:
    """Read the seeds of a grid.

    Raises:
        UserError: none, one that is no whole number, or one that is given twice.
    """
    items: Iterable[Any] = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    seeds = []
    for item in items:
        text = str(item).strip()
        if not text.isdigit():
            raise UserError(f"seeds: {text!r} is no whole number from 0; write 13,21,42")
        if int(text) in seeds:
            raise UserError(f"seeds: {text} is given twice")
        seeds.append(int(text))
    return seeds
