"""The commands ``merge``, ``export``, ``push`` and ``info``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from dfolora.flags import add_settings
from dfolora.settings.options import Options
from dfolora.settings.tools import ExportSettings, MergeSettings

KINDS: dict[str, type[Options]] = {"merge": MergeSettings, "export": ExportSettings}
WORDS = {"merge": ("adapter", "output"), "export": ("run",)}
"""What a command takes without a flag, in this order."""


def add_commands(add: Callable[..., Any]) -> None:
    """Add the parsers.

    Args:
        add: makes one, given name, help and more text.
    """
    merge = add(
        "merge",
        "write a plain transformers folder of a model and its adapter",
        "Example: dfolora merge runs/RUN merged",
    )
    merge.add_argument("adapter", metavar="RUN", help="folder of a run or of its adapter")
    merge.add_argument("output", metavar="OUTPUT", help="folder that is made")
    add_settings(merge, MergeSettings)
    export = add(
        "export",
        "write tasks for lm-evaluation-harness, with the prompts of a run or of other tasks",
        "Example: dfolora export runs/RUN --lm-eval lm_eval_tasks",
    )
    export.add_argument("run", nargs="?", default="", metavar="RUN", help="folder of a run or of its adapter")
    add_settings(export, ExportSettings)


def run(command: str, values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    """Run one of them and return its exit code."""
    facts = {"merge": _merge, "export": _export}[command](values)
    if as_json:
        print(json.dumps(facts))
    return 0


def _merge(values: dict[str, Any]) -> dict[str, Any]:
    from dfolora.tools.merge import merge

    facts = merge(**values)
    _say(f"{facts['modules']} linear maps of {facts['model']} changed; {facts['dtype']}: {facts['output']}")
    if facts["dtype"] != "float32":
        _say(f"rounding to {facts['dtype']} changes the weights by {facts['rounding']:.1%} of what the adapter does")
    return facts


def _export(values: dict[str, Any]) -> dict[str, Any]:
    from dfolora.tools.lm_eval import export

    facts = export(**{"lm_eval": "", **values})
    for name, count in facts["tasks"].items():
        _say(f"{name}: {count} examples")
    for name, reason in facts["left_out"].items():
        _say(f"left out: {name}: {reason}")
    _say(f"score them with: {facts['command']}")
    return facts


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
