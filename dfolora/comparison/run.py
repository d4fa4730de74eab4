"""Run the cells of a grid, each in a process of its own, and choose by the dev sets among what is tried."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from dfolora.comparison.cell import Cell
from dfolora.comparison.entry import Entry
from dfolora.comparison.grid import Grid

PATIENCE = 120.0  # seconds for an interrupted run to save its adapter
Say = Callable[[str], None]


class Runner:
    """Runs what is not there yet.

    Args:
        grid: of the comparison.
        say: told of every cell.
    """

    def __init__(self, grid: Grid, say: Say) -> None:
        self.grid = grid
        self.say = say
        self.total = len(grid.cells())
        self.done = 0

    def method(self, model: Entry, task: Entry, method: Entry) -> None:
        """Run the cells of a method on a task over the seeds.

        Only the cells of the choice that the dev sets like best, on average over seeds, are scored on the test set.
        """
        choices = self.grid.choices(model, task, method)
        if len(choices) == 1:
            self.each(choices[0], test=True)
            return
        for cells in choices:
            self.each(cells, test=False)
        for cell in max(choices, key=dev_score):
            if cell.searched and not cell.finished:
                self._run(cell, test=True, note="chosen by dev")

    def each(self, cells: list[Cell], test: bool) -> None:
        """Run those that are not finished."""
        for cell in cells:
            self.done += 1
            if (cell.finished if test else cell.searched) or (cell.error and not self.grid.asked.retry):
                continue
            self._run(cell, test, f"{self.done} of {self.total}")

    def _run(self, cell: Cell, test: bool, note: str) -> None:
        if self.grid.asked.read_only:
            return
        if cell.error:
            if not self.grid.asked.retry:
                return
            cell.forgive()
        cell.ask(test)
        self.say(f"[{note}] {cell.name}")
        started = time.monotonic()
        code = process(cell)
        seconds = time.monotonic() - started
        if code:
            if not cell.error:
                cell.fail(_ended(code))
            self.say(f"    failed after {seconds:.0f} s: {cell.error}")
            return
        found = cell.result()
        looks = [("dev", found["dev"]), (cell.split, found["metrics"])]
        text = ", ".join(f"{split} {next(iter(scores.values())):.1f}" for split, scores in looks if scores)
        self.say(f"    {text or 'done'} in {seconds:.0f} s")


def process(cell: Cell) -> int:
    """Run a cell's process to its end and return its exit code; an interruption is passed on to it first.

    Raises:
        KeyboardInterrupt: this process was interrupted.
    """
    command = [sys.executable, "-m", "dfolora.comparison.worker", str(cell.folder)]
    # In a session of its own, so that Ctrl-C reaches it once, and from here.
    with (cell.folder / "log.txt").open("ab") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return worker.wait()
    except BaseException:
        worker.send_signal(signal.SIGINT)
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        raise


def _ended(code: int) -> str:
    if code < 0:
        more = "; out of memory?" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{more}"
    return f"its process ended with exit code {code}; see its log.txt"


def dev_score(cells: list[Cell]) -> tuple[int, float, float]:
    """How the dev sets like cells; higher is better: how many there are, mean of the first metric, the loss negated."""
    found: list[dict[str, Any]] = [cell.result() for cell in cells if cell.searched]
    found = [each for each in found if each["dev"]]
    if not found:
        return 0, float("-inf"), float("-inf")
    losses = [each["dev_loss"] for each in found if each["dev_loss"] is not None]
    score = statistics.mean(next(iter(each["dev"].values())) for each in found)
    return len(found), score, -statistics.mean(losses) if losses else 0.0
