"""Trackers: where the numbers of a run can be followed while it goes on. Their packages are imported when asked for."""

from __future__ import annotations

import importlib.util
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from dfolora.errors import UserError, unknown
from dfolora.log import Line
from dfolora.registry import Registry
from dfolora.runs.listener import Listener, Listeners
from dfolora.settings.build import saved

if TYPE_CHECKING:
    from dfolora.runs.folder import Run

PROJECT = "dfolora"


class Tracker(Listener, ABC):
    """Writes the numbers of a run somewhere. A subclass says how: ``begin``, ``write``, ``end``.

    Numbers come under ``search/loss`` (the best of a step), ``search/token_layers``, ``search/seconds``,
    ``dev/<metric>``, ``dev/loss``, ``dev/best`` and, at the end, ``<split>/<metric>`` and
    ``<split>/<metric>_zero_shot``; the step is the number of evaluations. A tracker that fails is given up with a
    warning: no run is lost by it.

    Attributes:
        package: what must be importable.
    """

    package: ClassVar[str] = ""

    def __init__(self) -> None:
        self._open = False

    @abstractmethod
    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """A run begins or goes on.

        Args:
            folder: the run's; its name is that of the run.
            settings: the run's, as JSON holds them.
        """

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write finite numbers that belong to a number of evaluations."""

    def end(self) -> None:
        """Nothing more comes."""

    def started(self, run: Run, remark: str = "") -> None:
        self._open = True
        self._try(self.begin, run.folder, saved(run.settings))

    def progress(self, line: Line, best: Line) -> None:
        losses = [loss for loss in line.losses if loss is not None]
        values = {"search/loss": min(losses)} if losses else {}
        values |= {"search/token_layers": line.token_layers, "search/seconds": line.seconds}
        if line.dev is not None:
            values |= {f"dev/{name}": value for name, value in line.dev["metrics"].items()}
            values["dev/loss"] = math.nan if line.dev["loss"] is None else line.dev["loss"]
            values["dev/best"] = best.dev["main"] if best.dev else math.nan
        self._write(values, line.evaluations)

    def finished(self, run: Run) -> None:
        scores, split = run.scores, run.settings.test_split
        values = {f"{split}/{name}": value for name, value in scores["tuned"].items()}
        values |= {f"{split}/{name}_zero_shot": value for name, value in scores["zero_shot"].items()}
        self._write(values, scores["evaluations"])

    def closed(self) -> None:
        self._try(self.end)
        self._open = False

    def _write(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._try(self.write, finite, step)

    def _try(self, call: Any, *arguments: Any) -> None:
        if not self._open:
            return
        try:
            call(*arguments)
        except Exception as error:  # another package's code, and often a network
            self._open = False
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"track: {type(self).__name__} is given up ({reason:.200})", RuntimeWarning, stacklevel=2)


class TensorBoard(Tracker):
    """Event files in the folder ``tensorboard`` of the run, for ``tensorboard --logdir runs``."""

    package = "tensorboard"

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))
        text = yaml.safe_dump(dict(settings), sort_keys=False)
        self.writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()))

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self) -> None:
        self.writer.close()


class Wandb(Tracker):
    """Weights & Biases, project ``dfolora``; ``WANDB_MODE=offline`` and all its other variables hold."""

    package = "wandb"

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self.run: Any = wandb.init(project=PROJECT, name=folder.name, dir=str(folder), config=dict(settings))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self) -> None:
        self.run.finish()


class Trackio(Tracker):
    """trackio, project ``dfolora``: a local dashboard, ``trackio show``."""

    package = "trackio"

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import trackio

        self.trackio: Any = trackio
        trackio.init(project=PROJECT, name=folder.name, config=dict(settings))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(values), step=step)

    def end(self) -> None:
        self.trackio.finish()


REGISTRY = Registry(
    "tracker",
    {
        "tensorboard": ("dfolora.runs.trackers:TensorBoard", "event files in the run's folder"),
        "wandb": ("dfolora.runs.trackers:Wandb", "Weights & Biases"),
        "trackio": ("dfolora.runs.trackers:Trackio", "a local dashboard"),
    },
    "dfolora.trackers",
)


def with_trackers(listener: Listener, track: Any) -> Listener:
    """A listener and the trackers that ``track`` names.

    Args:
        listener: comes first.
        track: names separated by commas, a ``Tracker`` class or instance, or a list of these; '': none.

    Raises:
        UserError: an unknown name, something that is no tracker, or a package that is missing.
    """
    names = track.split(",") if isinstance(track, str) else track if isinstance(track, (list, tuple)) else [track]
    names = [name.strip() if isinstance(name, str) else name for name in names]
    trackers = [_tracker(name) for name in names if name]
    return Listeners([listener, *trackers]) if trackers else listener


def _tracker(named: Any) -> Tracker:
    if isinstance(named, str) and named not in REGISTRY.names():
        raise unknown("track", named, REGISTRY.names())
    kind = REGISTRY.get(named) if isinstance(named, str) else named
    if isinstance(kind, type) and issubclass(kind, Tracker):
        if kind.package and importlib.util.find_spec(kind.package) is None:
            name = named if isinstance(named, str) else kind.__name__
            raise UserError(f"track: {name} needs a package that is not installed; pip install {kind.package}")
        kind = kind()
    if not isinstance(kind, Tracker):
        raise UserError(f"track: {named!r} is no tracker (dfolora.runs.trackers.Tracker)")
    return kind
