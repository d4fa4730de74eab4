"""The commands ``compare``, ``plot`` and ``report``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from dfolora.flags import add_file, add_settings
from dfolora.settings.comparison import CompareSettings, PlotSettings, ReportSettings
from dfolora.settings.options import Options

KINDS: dict[str, type[Options]] = {"compare": CompareSettings, "plot": PlotSettings, "report": ReportSettings}


def add_commands(add: Callable[..., Any]) -> None:
    """Add the parsers.

    Args:
        add: makes one, given name, help and more text.
    """
    compare = add(
        "compare",
        "run a grid of tasks, methods and seeds, and compare the methods",
        "Example: dfolora compare --tasks demo/sentiment,demo/pair --methods default,first-order --output runs/demo",
    )
    add_file(compare)
    add_settings(compare, CompareSettings)
    plot = add(
        "plot", "draw scores and losses of runs or of a comparison (needs matplotlib: pip install dfolora[plot])"
    )
    plot.add_argument("folders", nargs="+", metavar="FOLDER", help="of a comparison, or of a run")
    add_settings(plot, PlotSettings)
    report = add("report", "make one HTML page of a comparison, with tables and curves")
    report.add_argument("folder", metavar="FOLDER", help="of a comparison")
    add_settings(report, ReportSettings)


def run(command: str, values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    """Run one of them and return its exit code: for a comparison 1 where a cell failed."""
    if command == "compare":
        return _compare(values, as_json, argv)
    if command == "plot":
        from dfolora.comparison.plot import plot

        made = [str(path) for path in plot(**values)]
    else:
        from dfolora.comparison.report import report

        made = [str(report(**values))]
    print(json.dumps({"files": made}) if as_json else "\n".join(made))
    return 0


def _compare(values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    from dfolora.comparison import tables
    from dfolora.comparison.compare import command_line, compare

    values = {name: value for name, value in values.items() if value is not None}
    try:
        results = compare(**values, command=command_line(argv), say=_say)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        raise
    if as_json:
        print(json.dumps(results))
    else:
        tables.show(results)
    for each in results["failures"]:
        _say(f"failed: {each['model']}, {each['cell']}: {each['error']}")
    if results["failures"]:
        _say("try these again with --retry")
    return 1 if results["failures"] else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
