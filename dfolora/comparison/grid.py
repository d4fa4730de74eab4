"""The grid of a comparison: models, tasks, methods and seeds, and the cells that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfolora.baselines import baseline_settings
from dfolora.comparison.cell import Cell
from dfolora.comparison.entry import ZERO_SHOT, Entry, entries, seeds_of
from dfolora.errors import UserError, unknown
from dfolora.opening import open_task, run_settings, with_demo
from dfolora.settings.build import saved, settings
from dfolora.settings.comparison import SHARED, CompareSettings
from dfolora.settings.model import EvaluateSettings, ModelSettings
from dfolora.settings.yaml_file import read_yaml

DEMO = Entry("demo", {})
_OF_MODEL = {field.name for field in dataclasses.fields(ModelSettings)}
_OWN = {"seed", "output", "test_split"}  # what the grid tells each cell itself


@dataclass(frozen=True)
class Grid:
    """A checked grid.

    Attributes:
        asked: the options of ``compare``.
        models, tasks, methods: the entries.
        seeds: of every task and method.
        shared: options that hold everywhere unless an entry says otherwise.
        folder: of the comparison.
    """

    asked: CompareSettings
    models: list[Entry]
    tasks: list[Entry]
    methods: list[Entry]
    seeds: list[int]
    shared: Mapping[str, Any]
    folder: Path

    def zero_shot(self, model: Entry, task: Entry) -> list[Cell]:
        """The model as it is, one cell for each seed, whose splits may differ."""
        return [self._cell(model, task, Entry(ZERO_SHOT, {}), seed, {}) for seed in self.seeds]

    def choices(self, model: Entry, task: Entry, method: Entry) -> list[list[Cell]]:
        """The cells of a method over the seeds, for each choice of what it tries."""
        return [[self._cell(model, task, method, seed, choice) for seed in self.seeds] for choice in method.choices()]

    def cells(self) -> list[Cell]:
        """All of them."""
        found: list[Cell] = []
        for model in self.models:
            for task in self.tasks:
                found += self.zero_shot(model, task)
                for method in self.methods:
                    found += [cell for cells in self.choices(model, task, method) for cell in cells]
        return found

    def _cell(self, model: Entry, task: Entry, method: Entry, seed: int, choice: Mapping[str, Any]) -> Cell:
        base = {**self.shared, **model.options, **task.options}
        own = {**method.options, **choice}
        where = [model.folder, task.folder, method.folder]
        where += ["-".join(f"{name}-{value}" for name, value in choice.items()).replace("/", "-")] if choice else []
        folder = self.folder.joinpath(*where, f"seed-{seed}")
        kind = "zero-shot" if method.label == ZERO_SHOT else "baseline" if method.baseline else "tune"
        plain = {name: value for name, value in base.items() if name in _OF_MODEL}
        options = {**(base if kind == "tune" else plain), **own, "seed": seed}
        try:
            if unasked := sorted(_OWN & {**base, **own}.keys()):
                raise UserError(f"{unasked[0]}: it is that of the whole comparison; leave it out")
            if kind == "tune":
                config: Any = run_settings(**options, test_split="none")
            elif kind == "baseline":
                asked = {**options, "test_split": self.asked.test_split}
                config = with_demo(baseline_settings(method.baseline, asked)[0])
            else:
                config = with_demo(settings(EvaluateSettings, **options))
        except UserError as error:
            raise UserError(f"{error} ({task.label}, {method.label})") from error
        if config.model != options.get("model") and isinstance(config.model, str):
            options["model"] = config.model
        if config.task:
            options["task"] = config.task
        name = {"name": method.baseline} if kind == "baseline" else {}
        return Cell(
            model.label, task.label, method.label, seed, folder, kind, {**name, **options}, saved(config),
            self.asked.test_split, choice,
        )  # fmt: skip


def make_grid(values: Mapping[str, Any]) -> Grid:
    """Read and check a grid. Nothing is run or written.

    Args:
        values: options of ``compare`` by name, ``config`` among them: a YAML file, over which the others win.

    Raises:
        UserError: an empty grid, a name that is not known, options that cannot work together, or an output folder that
            holds something else.
    """
    values = {name.replace("-", "_"): value for name, value in values.items()}
    path = values.pop("config", None)
    known = {field.name for field in dataclasses.fields(CompareSettings) if field.metadata.get("group")}
    if path:
        file = {name.replace("-", "_"): value for name, value in read_yaml(path).items()}
        for name in file:
            if name not in known:
                raise UserError(f"config: {str(path)!r}: {unknown('option', name, known)}")
        values = {**file, **values}
    for name in values:
        if name not in known:
            raise unknown("option", name, known)
    asked = CompareSettings(**values)
    shared = {name: getattr(asked, name) for name in SHARED if name in values}
    models, tasks = entries("models", asked.models) or [DEMO], entries("tasks", asked.tasks)
    if not tasks and shared.get("train_file"):
        tasks = [Entry(Path(str(shared["train_file"])).stem, {})]
    methods = [each for each in entries("methods", _without_zero_shot(asked.methods)) if each.label != ZERO_SHOT]
    seeds = seeds_of(asked.seeds)
    for name, found in (("tasks", tasks), ("seeds", seeds)):
        if not found:
            raise UserError(f"{name}: there are none; the grid is empty")
    labels = [ZERO_SHOT, *(method.label for method in methods)]
    if asked.against and asked.against not in labels:
        raise unknown("against", asked.against, labels)
    if not asked.output:
        raise UserError("output: which folder? a comparison goes on there when it is asked for again")
    grid = Grid(asked, models, tasks, methods, seeds, shared, Path(asked.output).expanduser())
    _check(grid)
    return grid


def _without_zero_shot(methods: Any) -> Any:
    """The methods without the model as it is, which every table has anyway."""
    items = methods.split(",") if isinstance(methods, str) else methods
    if isinstance(items, (list, tuple)):
        return [each.strip() if isinstance(each, str) else each for each in items if each not in (ZERO_SHOT, "")]
    return items


def _check(grid: Grid) -> None:
    """Check every cell's options, the names of tasks, folders of data, and what lies in the output folder."""
    folder = grid.folder
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output: {str(folder)!r} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "grid.json").is_file():
        raise UserError(f"output: {str(folder)!r} is not empty and holds no comparison; choose another folder")
    cells = grid.cells()
    folders = [cell.folder for cell in cells]
    if len(set(folders)) < len(folders):
        raise UserError("methods: two of the cells would have the same folder; give one of them another label")
    for cell in cells:
        data = cell.resolved.get("data")
        if data and not Path(str(data)).expanduser().is_dir():
            raise UserError(f"data: {str(data)!r}: there is no such folder")
        if cell.kind == "zero-shot":
            open_task(settings(EvaluateSettings, **cell.options))
        cell.check()
    here = any((each / "cell.json").is_file() for each in folders)
    if not here and any(folder.glob("*/*/*/**/cell.json")):
        raise UserError(f"output: {str(folder)!r} holds another grid, with no cell of this one; choose another folder")
