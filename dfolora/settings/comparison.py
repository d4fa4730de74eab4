"""Settings of ``compare``, ``plot`` and ``report``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dfolora.settings.options import Options, option
from dfolora.settings.tune import TuneSettings

GRID = "Grid"


@dataclass(frozen=True, kw_only=True)
class CompareSettings(TuneSettings):
    """Options of ``compare``: the grid, and what all of its runs are told."""

    # What the grid sets itself, or what no process of a cell could be told.
    model: Any = option("", "")
    task: Any = option("", "")
    seed: Any = option(0, "")
    extend: Any = option(None, "")
    reward: Any = option(None, "")
    push_to_hub: str = option("", "")
    models: Any = option("", "hub ids or folders, separated by commas; nothing: the demo's", group=GRID)
    tasks: Any = option("", "names of tasks, separated by commas", group=GRID)
    methods: Any = option(
        "default",
        "separated by commas: default, a method, preset, optimizer or baseline, each with flags of its own "
        "('fzoo --population 8'); '--try lr=0.03/0.1' leaves the choice to the dev set",
        group=GRID,
    )
    seeds: Any = option("13,21,42", "seeds, separated by commas", group=GRID)
    against: str = option("", "the method that the others are compared with; nothing: the first", group=GRID)
    retry: bool = option(False, "try anew what failed before", group=GRID)
    read_only: bool = option(False, "show what is there; run nothing", group=GRID)
    test_split: str = option("test", "what is reported: test, or dev", group="Run", choices=("test", "dev"))
    output: str = option("", "folder of the comparison; the same one goes on with it", group="Run")


SHARED = tuple(
    field.name for field in dataclasses.fields(TuneSettings)
    if field.name not in ("model", "task", "seed", "extend", "reward", "output", "test_split", "push_to_hub")
)  # fmt: skip
"""Options that hold for every run of a grid unless a model, task or method says otherwise."""


@dataclass(frozen=True, kw_only=True)
class PlotSettings(Options):
    """Options of ``plot``."""

    output: str = option("", "folder for the pictures; nothing: `plots` in the first folder", group="Run")
    formats: str = option("png,svg", "kinds of files, separated by commas", group="Run")


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Options):
    """Options of ``report``."""

    output: str = option("", "the page; nothing: report.html in the folder", group="Run")
