"""The command ``alternate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from dfolora.flags import add_file, add_method, add_settings
from dfolora.runs.progress import Display
from dfolora.settings.options import Options
from dfolora.settings.prompting import AlternateSettings

KINDS: dict[str, type[Options]] = {"alternate": AlternateSettings}


def add_commands(add: Callable[..., Any]) -> None:
    """Add the parser, without the options of ``tune``.

    Args:
        add: makes one, given name, help and more text.
    """
    parser = add(
        "alternate",
        "search an instruction and an adapter in turn, each with the other held",
        "It takes the options of `tune`, too. Example: dfolora alternate --model HuggingFaceTB/SmolLM2-135M-Instruct "
        "--task mezo/sst2 --data data --cycles 2 --scored 20 --budget 2000 --output runs/both",
    )
    add_file(parser)
    parser.add_argument("--resume", metavar="RUN", help="go on with a run folder")
    add_method(parser)
    add_settings(parser, AlternateSettings)


def own_names(command: str) -> set[str]:
    """What the command takes beside the options of ``tune``; nothing of any other command."""
    return {field.name for field in fields(KINDS[command])} if command in KINDS else set()


def run(command: str, values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    """Run it and print what came of it; the exit code."""
    from dfolora.evolution.alternate import alternate

    with Display() as display:
        try:
            scores = alternate(**values, listener=display)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise
    print(json.dumps(scores) if as_json else _text(scores))
    return 0


def _text(scores: dict[str, Any]) -> str:
    """The scores as lines for people."""

    def shown(metrics: dict[str, Any]) -> str:
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        return ", ".join(f"{name} {value:.2f}" for name, value in numbers.items()) or "not scored"

    lines = [f"{scores['task']}: {scores['evaluations']} evaluations, {scores['calls']} calls"]
    for number, each in enumerate(scores["cycles"], 1):
        lines.append(f"  cycle {number}  dev loss {each['text_dev_loss']:.4f} with {each['instruction']!r}")
        lines.append(f"           dev loss {_number(each['dev_loss'])} with the adapter, too: {shown(each['tuned'])}")
    lines.append(f"  plain    {shown(scores['plain'])}")
    lines.append(f"  best     cycle {scores['best_cycle']}: {shown(scores['tuned'])}")
    return "\n".join([*lines, f"run: {scores['run']}"])


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
