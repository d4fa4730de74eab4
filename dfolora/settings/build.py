"""Build settings from option names and values, whether from Python, YAML or flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dfolora.errors import UserError, unknown
from dfolora.settings.methods import METHODS, TuneSettings
from dfolora.settings.options import Options, as_text, typed
from dfolora.settings.presets import PRESETS

Settings = TypeVar("Settings", bound=Options)


def tune_settings(**values: Any) -> TuneSettings:
    """Build the settings of a run: preset, then the given options, checked against the method.

    Args:
        values: ``method``, ``preset``, options of the method and of its optimizer; dashes count as underscores. What is
            named here wins over the preset.

    Raises:
        UserError: a name that the method does not take, or a value that cannot work.
    """
    values = _underscores(values)
    preset = str(values.pop("preset", "") or "")
    if preset and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    defaults = PRESETS.get(preset, {})
    method = str(values.pop("method", "") or defaults.get("method", "search"))
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if preset and method != defaults.get("method", "search"):
        raise UserError(f"preset: {preset} is for the method {defaults.get('method', 'search')}, not for {method}")
    values = {**{name: value for name, value in defaults.items() if name != "method"}, **values}
    kind = METHODS[method]
    names = {field.name for field in dataclasses.fields(kind)}
    options = typed("optimizer_options", values.pop("optimizer_options", None) or {}, dict[str, Any])
    known = optimizer_options(kind, values.get("optimizer"))
    for name in [name for name in values if name not in names]:
        if name not in known:
            raise refusal(name, kind, values.get("optimizer"))
        options[name] = values.pop(name)
    if options:
        for name in options:
            if name not in known:
                raise refusal(name, kind, values.get("optimizer"))
        values["optimizer_options"] = {
            name: typed(name, value, known[name].type) for name, value in options.items() if value is not None
        }
    return kind(**values)


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


def optimizer_options(kind: type[TuneSettings], optimizer: Any = None) -> dict[str, Any]:
    """Options that the method's optimizer declares, beyond the method's own; {} where it has no optimizer."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if "optimizer_options" not in fields:
        return {}
    from dfolora.optimizers import options_of

    chosen: Any = optimizer or fields["optimizer"].default
    found = options_of(chosen)
    return {name: option for name, option in found.items() if name not in fields}


def refusal(name: str, kind: type[TuneSettings], optimizer: Any = None) -> UserError:
    """The error for an option that a method and its optimizer do not take; it names those that do."""
    from dfolora.optimizers import takers

    methods = [m.method for m in METHODS.values() if name in {field.name for field in dataclasses.fields(m)}]
    optimizers = takers(name)
    default = {field.name: field.default for field in dataclasses.fields(kind)}.get("optimizer")
    if optimizers and default is not None and kind.method != "full-parameter":
        return UserError(f"{name}: {as_text(optimizer or default)} does not take it; it is for {', '.join(optimizers)}")
    if methods or optimizers:
        who = ", ".join(methods or ["search"])
        return UserError(f"{name}: the method {kind.method} does not take it; it is for {who}")
    known = {field.name for field in dataclasses.fields(kind)} | set(optimizer_options(kind, optimizer))
    return unknown("option", name, {*known, "method", "preset"})


def saved(config: Options) -> dict[str, Any]:
    """Settings as a YAML file holds them: optimizer options beside the others, unset options left out."""
    values = {field.name: as_text(getattr(config, field.name)) for field in dataclasses.fields(config)}
    values |= values.pop("optimizer_options", {})
    if isinstance(config, TuneSettings):
        values = {"method": config.method, **values}
    return {name: value for name, value in values.items() if value is not None}


def _underscores(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in values.items()}
