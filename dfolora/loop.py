"""The loop of every run: a step, its line in the log, a look at the dev set when one is due."""

from __future__ import annotations

import time
from typing import Any

from dfolora.log import Line
from dfolora.methods.method import Method
from dfolora.runs.folder import Run
from dfolora.runs.listener import Listener


def run_method(method: Method[Any], run: Run, listener: Listener | None = None) -> Line:
    """Replay the log, go on until the budget is spent, then load the adapter that did best on the dev set.

    Args:
        method: what a step is.
        run: its folder.
        listener: told of every step.

    Returns:
        The last line of the log.

    Raises:
        UserError: the log cannot be repeated here.
    """
    listener = listener or Listener()
    selection, budget = method.problem.selection, method.budget
    try:
        with method.running():
            line = _go_to_end_of_log(method, run)
            if not run.lines:
                listener.progress(line, selection.best)
            while line.evaluations + method.size <= budget and not method.is_stuck(line):
                started = time.perf_counter()
                step = method.step(line)
                before, line = line, line.next(step, method.problem.engine, started)
                due = method.look_is_due(before, line)
                if due:
                    method.look(line)
                run.log(line)
                if due and method.keeps_state:
                    run.save_state(method.state(), line.generation)
                listener.progress(line, selection.best)
                for alarm in method.problem.alarms.take():
                    listener.alarm(alarm, line)
    finally:
        selection.restore()
    return line


def _go_to_end_of_log(method: Method[Any], run: Run) -> Line:
    """Replay the log and return its last line; a new run scores the base model on the dev set first."""
    selection = method.problem.selection
    if not run.lines:
        run.rewrite(0)  # of an earlier start half a line may be there
        line = Line(note=method.origin())
        selection.begin(line)
        run.log(line)
        return line
    tensors, reached = run.load_state() if method.keeps_state else ({}, len(run.lines) - 1)
    line, *rest = run.lines[: reached + 1]
    method.check_origin(line.note)
    selection.begin(line)
    for before, line in zip(run.lines, rest, strict=False):
        method.repeat(before, line)
        if line.dev is not None:
            method.look(line)
    after = run.lines[reached + 1 : reached + 2]
    method.restore(tensors, after[0] if after else None)
    if rest:
        method.problem.engine.reset_counts()
    run.rewrite(line.generation)  # only now is it certain that the run can go on
    return line
