"""Build settings from option names and values, whether from Python, YAML or flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dfolora.errors import UserError, unknown
from dfolora.settings.methods import METHODS
from dfolora.settings.options import Options, as_text, typed
from dfolora.settings.presets import PRESETS
from dfolora.settings.search import PROMPTS
from dfolora.settings.tune import TuneSettings

Settings = TypeVar("Settings", bound=Options)

PLACES = {"optimizer": "optimizer_options", "subspace": "subspace_options", "baseline": "baseline_options"}
"""What can be plugged in -> the field that collects the options which it declares."""


def tune_settings(**values: Any) -> TuneSettings:
    """Build the settings of a run: preset, then the given options, checked against the method.

    Args:
        values: ``method``, ``preset``, options of the method and of its optimizer; dashes count as underscores. What is
            named here wins over the preset. Without a method it is ``method_of`` that chooses; what a task's name says
            is known to ``opening.run_settings``.

    Raises:
        UserError: a name that the method does not take, or a value that cannot work.
    """
    values = _underscores(values)
    preset = str(values.pop("preset", "") or "")
    if preset and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    defaults = PRESETS.get(preset, {})
    method = method_of({**values, "preset": preset})
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if preset and method != defaults.get("method", "search"):
        raise UserError(f"preset: {preset} is for the method {defaults.get('method', 'search')}, not for {method}")
    values.pop("method", None)
    values = {**{name: value for name, value in defaults.items() if name != "method"}, **values}
    kind = METHODS[method]
    names = {field.name for field in dataclasses.fields(kind)}
    if values.get("tune", "lora") == "lora" and "tune" not in names:
        values.pop("tune", None)  # the only thing that the method tunes, or none of a choice
    if values.get("tune") in PROMPTS and "subspace" in names:
        values = {"subspace": "random", **values}
    declared = declared_options(kind, values)
    collected: dict[str, dict[str, Any]] = {place: {} for place in PLACES.values() if place in names}
    for place in collected:
        for name, value in typed(place, values.pop(place, None) or {}, dict[str, Any]).items():
            collected[place][name] = value
    for name in [name for name in values if name not in names]:
        if name not in declared:
            raise refusal(name, kind, values)
        collected[declared[name][0]][name] = values.pop(name)
    for place, options in collected.items():
        for name in options:
            if name not in declared or declared[name][0] != place:
                raise refusal(name, kind, values)
        values[place] = {
            name: typed(name, value, declared[name][1].type) for name, value in options.items() if value is not None
        }
    return kind(**values)


def method_of(values: Mapping[str, Any], generated: bool = False) -> str:
    """The method that options ask for: the one that is named, or a preset's.

    Where none is named: ``search`` if an option is one that only a search takes (an optimizer, a subspace, ...), or if
    there is one number to go by and no class scores (a metric, a reward, generated answers); ``tangent`` otherwise.

    Args:
        values: names with underscores; a flag's value may still be text.
        generated: whether the task's answers are generated, where ``new_tokens`` is not among the options.
    """
    preset = values.get("preset")
    if values.get("method") or preset:
        return str(values.get("method") or PRESETS.get(str(preset), {}).get("method", "search"))
    new_tokens = values.get("new_tokens")
    generated = generated if new_tokens is None else str(new_tokens) != "0"
    if generated or values.get("reward") is not None or values.get("objective") == "metric":
        return "search"
    named = [name for name in values if name != "tune" or values[name] != "lora"]
    return "search" if any(_only_search_takes(name, values) for name in named) else "tangent"


def _only_search_takes(name: str, chosen: Mapping[str, Any]) -> bool:
    from dfolora.optimizers import takers

    tangent, search = ({each.name for each in dataclasses.fields(METHODS[name])} for name in ("tangent", "search"))
    return name not in tangent and (
        name in search or bool(takers(name)) or name in declared_options(METHODS["search"], chosen)
    )


def settings(kind: type[Settings], /, **values: Any) -> Settings:
    """Build the settings of any other command.

    Raises:
        UserError: a name that it does not take, or a value that cannot work.
    """
    values = _underscores(values)
    names = {field.name for field in dataclasses.fields(kind)}
    for name in values:
        if name not in names:
            raise unknown("option", name, names)
    return kind(**values)


def declared_options(kind: type[TuneSettings], chosen: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Options that the chosen optimizer and subspace declare, beyond the method's own.

    Args:
        kind: the method's settings.
        chosen: ``optimizer`` and ``subspace``, a name or an object each; left out: the method's default.

    Returns:
        Option name -> the field that collects it, ``optimizer_options`` or ``subspace_options``, and its ``Option``.

    Raises:
        UserError: an unknown name.
    """
    from dfolora.optimizers import options_of
    from dfolora.subspaces import subspace_options

    fields = {field.name: field for field in dataclasses.fields(kind)}
    found: dict[str, tuple[str, Any]] = {}
    for plug, declare in (("subspace", subspace_options), ("optimizer", options_of)):
        if plug == "subspace" and chosen.get("tune") in PROMPTS:
            continue
        if PLACES[plug] in fields:
            source: Any = chosen.get(plug) or fields[plug].default
            options = declare(source)
            found |= {name: (PLACES[plug], option) for name, option in options.items() if name not in fields}
    return found


def refusal(name: str, kind: type[TuneSettings], chosen: Mapping[str, Any]) -> UserError:
    """The error for an option that a method and its optimizer do not take; it names those that do."""
    from dfolora.optimizers import takers

    methods = [m.method for m in METHODS.values() if name in {field.name for field in dataclasses.fields(m)}]
    optimizers = takers(name)
    default = {field.name: field.default for field in dataclasses.fields(kind)}.get("optimizer")
    if optimizers and default is not None and kind.method != "full-parameter":
        optimizer = as_text(chosen.get("optimizer") or default)
        return UserError(f"{name}: {optimizer} does not take it; it is for {', '.join(optimizers)}")
    if methods or optimizers:
        who = ", ".join(methods or ["search"])
        return UserError(f"{name}: the method {kind.method} does not take it; it is for {who}")
    known = {field.name for field in dataclasses.fields(kind)} | set(declared_options(kind, chosen))
    return unknown("option", name, {*known, "method", "preset"})


def saved(config: Options) -> dict[str, Any]:
    """Settings as a YAML file holds them: declared options beside the others, unset ones left out."""
    values = {field.name: as_text(getattr(config, field.name)) for field in dataclasses.fields(config)}
    for place in PLACES.values():
        values |= values.pop(place, {})
    if isinstance(config, TuneSettings):
        values = {"method": config.method, **values}
    return {name: value for name, value in values.items() if value is not None}


def _underscores(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in values.items()}
