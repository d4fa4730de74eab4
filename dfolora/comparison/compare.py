"""Compare methods: run a grid, or go on with it, and write its results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

from filelock import FileLock

from dfolora.comparison import tables
from dfolora.comparison.entry import ZERO_SHOT
from dfolora.comparison.grid import Grid, make_grid
from dfolora.comparison.run import Runner, dev_score
from dfolora.comparison.summary import Row, about, summary
from dfolora.errors import UserError
from dfolora.runs.files import write_text
from dfolora.runs.lock import locked


def compare(
    *, command: str = "dfolora.compare(...)", say: Callable[[str], None] = lambda line: None, **options: Any
) -> dict[str, Any]:
    """Run a grid of models, tasks, methods and seeds, each cell in a process of its own, and compare the methods.

    What is finished in ``output`` is read, what was interrupted goes on, and what fails leaves the others alone.

    Args:
        command: what the results say made them.
        say: told of every cell.
        options: any option of ``dfolora compare``: ``models``, ``tasks``, ``methods`` (names, or lists of names and of
            mappings with options), ``seeds``, ``output``, ``against``, ``retry``, ``config``, and what every run is
            told, such as ``budget`` and ``data``. See docs/comparing.md.

    Returns:
        What ``results.json`` holds: ``rows`` (scores, costs, difference), ``averages``, ``failures``, ``command``,
        ``versions``.

    Raises:
        UserError: a grid that cannot work, or a folder that holds another one; nothing has run then.
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    grid = make_grid(options)
    lock = _locked(grid)
    try:
        if not grid.asked.read_only:
            write_text(grid.folder / "grid.json", json.dumps(options, indent=2, default=str) + "\n")
        runner = Runner(grid, say)
        try:
            for model in grid.models:
                for task in grid.tasks:
                    runner.each(grid.zero_shot(model, task), test=True)
                    for method in grid.methods:
                        runner.method(model, task, method)
                    _write(grid, results_of(grid, command))
        finally:
            results = results_of(grid, command)
            _write(grid, results)
        return results
    finally:
        lock.release()


def _locked(grid: Grid) -> FileLock:
    folder = grid.folder
    if grid.asked.read_only and not folder.is_dir():
        raise UserError(f"output: {str(folder)!r} is not there; nothing can be read")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output: cannot write {str(folder)!r} ({error.strerror})") from error
    return locked(folder, "another comparison is running in")


def results_of(grid: Grid, command: str) -> dict[str, Any]:
    """The results of what is there."""
    rows = []
    for model in grid.models:
        for task in grid.tasks:
            found = [grid.zero_shot(model, task)]
            found += [max(grid.choices(model, task, method), key=dev_score) for method in grid.methods]
            rows += [Row(cells) for cells in found if any(cell.finished or cell.error for cell in cells)]
    against = grid.asked.against or (grid.methods[0].label if grid.methods else ZERO_SHOT)
    failures = [cell for cell in grid.cells() if cell.error]
    return summary(rows, failures, against, about(command, grid))


def _write(grid: Grid, results: dict[str, Any]) -> None:
    """Results as Markdown, CSV and JSON."""
    if not grid.asked.read_only:
        write_text(grid.folder / "results.json", json.dumps(results, indent=2) + "\n")
        write_text(grid.folder / "results.md", tables.markdown(results))
        write_text(grid.folder / "results.csv", tables.csv_text(results))


def command_line(words: list[str]) -> str:
    """A command as one types it."""
    return "dfolora " + shlex.join(words)
