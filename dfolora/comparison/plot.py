"""Pictures of runs: score and loss against work and time with bands over seeds, and what each layer gained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfolora.comparison.curves import Group, groups_of
from dfolora.errors import UserError, unknown
from dfolora.settings.build import settings
from dfolora.settings.comparison import PlotSettings

FORMATS = ("png", "svg", "pdf")


def plot(folders: str | Path | Sequence[str | Path], **options: Any) -> list[Path]:
    """Draw the runs of comparisons, or single runs.

    Args:
        folders: of a comparison or a run, one or several.
        options: ``output``, the pictures' folder, and ``formats``.

    Returns:
        The files: for each model and task curves, and, where layers were searched in turn, their gains.

    Raises:
        UserError: matplotlib is not installed, or there is nothing to draw.
    """
    asked = settings(PlotSettings, **options)
    names = [folders] if isinstance(folders, (str, Path)) else list(folders)
    formats = [each.strip() for each in asked.formats.split(",") if each.strip()]
    for each in formats:
        if each not in FORMATS:
            raise unknown("formats", each, FORMATS)
    groups = groups_of(names)
    figure = _figure()
    output = Path(asked.output).expanduser() if asked.output else Path(names[0]).expanduser() / "plots"
    made: list[Path] = []
    for model, task in dict.fromkeys((group.model, group.task) for group in groups):
        here = [group for group in groups if (group.model, group.task) == (model, task)]
        stem = re.sub(r"[^\w.]+", "-", f"{model}-{task}").strip("-") or "run"
        for kind, draw in (("curves", _curves), ("layers", _layers)):
            picture = figure()
            if draw(picture, here):
                picture.suptitle(f"{task}, {model}")
                made += _save(picture, output / f"{stem}-{kind}", formats)
    return made


def _figure() -> Any:
    """What makes an empty figure that no window shows."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plot: needs matplotlib; pip install 'dfolora[plot]'") from error
    return lambda: Figure(figsize=(10, 7), layout="constrained")


def _curves(figure: Any, groups: list[Group]) -> bool:
    """Four pictures: score and loss, each against token-layers and seconds."""
    axes = figure.subplots(2, 2)
    drawn = False
    for row, what in enumerate(("score", "loss")):
        for column, against in enumerate(("token-layers", "seconds")):
            picture = axes[row][column]
            for group in groups:
                line = group.line(what, against)
                if line is not None:
                    drawn = True
                    (curve,) = picture.plot(line.x, line.mean, label=f"{group.method} ({len(group.curves)})")
                    picture.fill_between(
                        line.x, line.mean - line.sd, line.mean + line.sd, color=curve.get_color(), alpha=0.2, lw=0
                    )
            picture.set_xlabel(against)
            picture.set_ylabel("dev score, best so far" if what == "score" else "loss, lowest so far")
            picture.grid(alpha=0.3)
    if drawn:
        axes[0][0].legend(title="method (seeds); band: ± sd", fontsize="small")
    return drawn


def _layers(figure: Any, groups: list[Group]) -> bool:
    """One picture: how far each layer's generations brought the loss down."""
    drawn = [(group.method, group.gains()) for group in groups if group.gains()]
    if not drawn:
        return False
    picture = figure.subplots()
    width = 0.8 / len(drawn)
    for index, (method, gains) in enumerate(drawn):
        places = [layer + (index - (len(drawn) - 1) / 2) * width for layer in gains]
        picture.bar(places, list(gains.values()), width, label=method)
    picture.set_xlabel("layer")
    picture.set_ylabel("gain: how far its generations lowered the loss")
    picture.xaxis.get_major_locator().set_params(integer=True)
    picture.grid(alpha=0.3, axis="y")
    picture.legend(fontsize="small")
    return True


def _save(figure: Any, stem: Path, formats: Sequence[str]) -> list[Path]:
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        made = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
        for path in made:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"output: cannot write {str(stem.parent)!r} ({error.strerror})") from error
    return made
