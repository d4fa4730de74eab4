"""The commands ``merge``, ``export``, ``push`` and ``info``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from dfolora.flags import MISSING, add_file, add_method, add_settings
from dfolora.runs.forecast import clock
from dfolora.settings.options import Options
from dfolora.settings.tools import ExportSettings, MergeSettings, PushSettings
from dfolora.settings.tune import TuneSettings

KINDS: dict[str, type[Options]] = {
    "merge": MergeSettings,
    "export": ExportSettings,
    "push": PushSettings,
    "info": TuneSettings,
}
WORDS = {"merge": ("adapter", "output"), "export": ("run",), "push": ("run", "repository")}
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
    push = add(
        "push",
        "push an adapter and its card to the Hugging Face Hub; the token comes from HF_TOKEN",
        "Example: dfolora push runs/RUN me/reviews",
    )
    push.add_argument("run", metavar="RUN", help="folder of a run or of its adapter")
    push.add_argument("repository", metavar="REPOSITORY", help="OWNER/NAME; made where it is not there")
    add_settings(push, PushSettings)
    info = add(
        "info",
        "what a model and a task are, and what a run would cost; nothing is searched",
        "It takes the options of `tune`. Example: dfolora info roberta-base glue/sst2 --data DATA --optimizer cma",
    )
    info.add_argument("model", nargs="?", metavar="MODEL", default=MISSING, help="hub id or folder")
    info.add_argument("task", nargs="?", metavar="TASK", default=MISSING, help="see `dfolora tasks`")
    add_file(info)
    add_method(info)


def run(command: str, values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    """Run one of them and return its exit code."""
    facts = {"merge": _merge, "export": _export, "push": _push, "info": _info}[command](values)
    if as_json:
        print(json.dumps(facts))
    elif command == "info":
        print("\n".join(_lines(facts)))
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


def _push(values: dict[str, Any]) -> dict[str, Any]:
    from dfolora.runs.hub import push

    facts = {"pushed": push(**values)}
    _say(f"pushed: {facts['pushed']}")
    return facts


def _info(values: dict[str, Any]) -> dict[str, Any]:
    from dfolora.tools.info import info

    return info(**values)


def _lines(facts: dict[str, Any]) -> list[str]:
    """Nested facts for people: a name and its value a line; times and memory in units that are read at a glance."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [name, *("  " + line for line in _lines(value))]
        elif value is not None:
            lines.append(f"{name:20s} {_shown(name, value)}")
    return lines


def _shown(name: str, value: Any) -> str:
    if name.endswith("seconds"):
        return clock(value)
    if name.endswith("bytes"):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, list):
        same = len(value) > 1 and len(set(value)) == 1
        return f"{len(value)} x {value[0]}" if same else ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", "\\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
