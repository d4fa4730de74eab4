"""The loop of every run: a step, its line in the log, a look at the dev set when one is due, an end."""

from __future__ import annotations

import time
from typing import Any

from dfolora.log import Line
from dfolora.methods.method import Method
from dfolora.runs.ending import Ending
from dfolora.runs.folder import Run
from dfolora.runs.forecast import early_forecast
from dfolora.runs.listener import Listener


def run_method(method: Method[Any], run: Run, listener: Listener | None = None, tests: int = 0) -> Line:
    """Replay the log, go on until the budget is spent, then load the adapter that did best on the dev set.

    ``stop_at``, ``patience`` and listeners may end it earlier; the last line's ``ended`` says so.

    Args:
        method: what a step is.
        run: its folder.
        listener: told of every step, which may ask to end.
        tests: examples that are going to be scored after it, for the forecast.

    Returns:
        The last line of the log.

    Raises:
        UserError: the log cannot be repeated here.
    """
    listener = listener or Listener()
    selection, budget = method.problem.selection, method.budget
    ending = Ending(run.settings.stop_at, run.settings.patience)
    try:
        with method.running():
            line = _go_to_end_of_log(method, run, ending)
            if not run.lines:
                ending.reason = listener.progress(line, selection.best) or ending.reason
            told = bool(ending.reason) or _tell_forecast(method, line, tests, listener)
            while line.evaluations + method.size <= budget and not (ending.reason or method.is_stuck(line)):
                started = time.perf_counter()
                step = method.step(line)
                before, line = line, line.next(step, method.problem.engine, started)
                due = method.look_is_due(before, line)
                if due:
                    method.look(line)
                line.ended = ending.see(line)
                run.log(line)
                if due and method.keeps_state:
                    run.save_state(method.state(), line.generation)
                ending.reason = listener.progress(line, selection.best) or ending.reason
                told = told or _tell_forecast(method, line, tests, listener)
    finally:
        selection.restore()
    if ending.reason:
        line.ended = ending.reason
        listener.ended(line)
    return line


def _tell_forecast(method: Method[Any], line: Line, tests: int, listener: Listener) -> bool:
    """Tell what the rest will cost; returns whether that is settled: a method may need a step to know it."""
    expected = early_forecast(method, line, tests)
    if expected is not None:
        listener.forecast(expected)
    return expected is not None or line.generation > 0


def _go_to_end_of_log(method: Method[Any], run: Run, ending: Ending) -> Line:
    """Replay the log and return its last line; a new run scores the base model on the dev set first."""
    selection = method.problem.selection
    if not run.lines:
        run.rewrite(0)  # of an earlier start half a line may be there
        line = Line(note=method.origin())
        selection.begin(line)
        line.ended = ending.see(line)
        run.log(line)
        return line
    tensors, reached = run.load_state() if method.keeps_state else ({}, len(run.lines) - 1)
    line, *rest = run.lines[: reached + 1]
    method.check_origin(line.note)
    selection.begin(line)
    ending.see(line)
    for before, line in zip(run.lines, rest, strict=False):
        method.repeat(before, line)
        if line.dev is not None:
            method.look(line)
        ending.see(line)
    after = run.lines[reached + 1 : reached + 2]
    method.restore(tensors, after[0] if after else None)
    if rest:
        method.problem.engine.reset_counts()
    run.rewrite(line.generation)  # only now is it certain that the run can go on
    return line
