"""What a search is compared with: plain ways to a prediction, by name, on the same splits and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dfolora.declared import Option, declared
from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import settings
from dfolora.settings.options import typed_options

if TYPE_CHECKING:
    from dfolora.baselines.base import Baseline

REGISTRY = Registry(
    "baseline",
    {
        "majority": ("dfolora.baselines.majority:Majority", "the commonest class of the training set, always"),
        "zero-shot": ("dfolora.baselines.zero_shot:ZeroShot", "the model as it is"),
        "calibrated": (
            "dfolora.baselines.calibrated:Calibrated",
            "the model as it is, with an offset for each class",
        ),
        "in-context": ("dfolora.baselines.in_context:InContext", "labelled examples in front of every prompt"),
        "logistic-regression": (
            "dfolora.baselines.logistic_regression:LogisticRegression",
            "a linear classifier on the hidden states of the model as it is",
        ),
        "setfit": (
            "dfolora.baselines.setfit:SetFit",
            "contrastive tuning of a sentence encoder (the setfit package)",
        ),
    },
    "dfolora.baselines",
)

Source = Any
"""What may be given as a baseline: a name, a class, a function that returns one, or an instance."""


def options_of(source: Source) -> dict[str, Option]:
    """What a baseline takes, by name: the keyword parameters of its constructor; nothing for an instance.

    Raises:
        UserError: an unknown name (with near misses), or no baseline at all.
    """
    build = _builder(source)
    return declared(build, ()) if callable(build) else {}


def make_baseline(source: Source, options: Mapping[str, Any]) -> Baseline:
    """Build a baseline.

    Args:
        source: a name, one of ``REGISTRY.names()``, a class, a function that returns one, or an instance.
        options: what it takes, see ``options_of``; None stands for its own default.

    Raises:
        UserError: an unknown name, an option that it does not take, or a value that cannot work.
    """
    from dfolora.baselines.base import Baseline

    values = _own_options(source, options)
    build = _builder(source)
    made = build(**values) if callable(build) else build
    if not isinstance(made, Baseline):
        raise _no_baseline(made)
    return made


def baseline_settings(source: Source, values: Mapping[str, Any]) -> tuple[BaselineSettings, Baseline]:
    """Build a baseline, and the settings that name it.

    Args:
        source: as for ``make_baseline``.
        values: options of ``dfolora baseline``, those that the baseline takes itself among them; dashes count as
            underscores.

    Raises:
        UserError: an unknown name or option, or a value that cannot work.
    """
    values = {name.replace("-", "_"): value for name, value in values.items()}
    takes = options_of(source)
    own = _own_options(source, {name: value for name, value in values.items() if name in takes})
    others = {name: value for name, value in values.items() if name not in takes}
    names = {field.name for field in dataclasses.fields(BaselineSettings)} - {"baseline", "baseline_options"}
    for name in others:
        if name not in names:
            raise unknown("option", name, {*names, *takes})
    plain = settings(BaselineSettings, **others, baseline=source, baseline_options=own)
    return plain, make_baseline(source, own)


def _own_options(source: Source, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the types that a baseline declares; as ``typed_options``."""
    label = source if isinstance(source, str) else getattr(source, "__name__", type(source).__name__)
    return typed_options(label, options, options_of(source))


def _builder(source: Source) -> Callable[..., Any] | Any:
    """What is called to build it, or the instance itself."""
    from dfolora.baselines.base import Baseline

    build = REGISTRY.get(source) if isinstance(source, str) else source
    if isinstance(build, Baseline) or (callable(build) and not isinstance(build, type)):
        return build
    if isinstance(build, type) and issubclass(build, Baseline):
        return build
    raise _no_baseline(build)


def _no_baseline(thing: Any) -> UserError:
    return UserError(
        f"baseline: {thing!r} is none; give a name such as 'majority', a subclass of dfolora.Baseline, or an instance"
    )
