"""Tune one model on several tasks, seeds and methods at equal budget, and print the table of test scores.

    python -m scripts.few_shot_table --model MODEL --data DATA --output runs/table \\
        --tasks agnews,glue/sst2 --seeds 13,21,42 --methods default,dfo-lora,fireworks

A method is ``default``, ``first-order``, ``hybrid``, a preset or an optimizer's name. Every cell is an ordinary run
folder below --output: finished ones are read, interrupted ones go on, so the script can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from dfolora import cli
from dfolora.presets import PRESETS


def flags(method: str) -> list[str]:
    if method == "default":
        return []
    if method in ("first-order", "hybrid"):
        return ["--method", method]
    return ["--preset", method] if method in PRESETS else ["--optimizer", method]


def cell(arguments: argparse.Namespace, method: str, task: str, seed: int) -> dict[str, Any] | None:
    """The scores of one run, made now unless they are there; None where it failed or is not to be run."""
    folder = Path(arguments.output) / f"{task}-{method}-{seed}".replace("/", "-").replace(":", "-")
    done = folder / "scores.json"
    if not done.exists() and not arguments.read_only:
        if (folder / "subspace.safetensors").exists():
            command = ["tune", "--resume", str(folder)]
        else:
            command = ["tune", "--task", task, "--seed", str(seed), "--output", str(folder), *flags(method)]
            command += ["--budget", str(arguments.budget), "--dtype", arguments.dtype]
            command += ["--model", arguments.model] if arguments.model else []
            command += ["--data", arguments.data] if arguments.data else []
        if cli.main(command):
            return None
    return json.loads(done.read_text(encoding="utf-8")) if done.exists() else None


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def table(scores: dict[tuple[str, str], list[dict[str, Any]]], methods: list[str], tasks: list[str]) -> str:
    """Markdown: mean ± sample standard deviation over seeds of the task's first metric on the test split."""
    lines = ["| task | method | seeds | evaluations | zero-shot | tuned | change | token-layers | seconds |"]
    lines.append("|" + "---|" * 9)
    for task in tasks:
        for method in methods:
            runs = scores[task, method]
            if not runs:
                continue
            before = [next(iter(run["zero_shot"].values())) for run in runs]
            after = [next(iter(run["tuned"].values())) for run in runs]
            change = [b - a for a, b in zip(before, after, strict=True)]
            seeds = ", ".join(str(run["seed"]) for run in runs)
            lines.append(
                f"| {task} | {method} | {seeds} | {runs[0]['evaluations']} | {spread(before)} | {spread(after)} "
                f"| {statistics.mean(change):+.1f} | {statistics.mean(r['token_layers'] for r in runs):.2e} "
                f"| {statistics.mean(r['seconds'] for r in runs):.0f} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="hub id or folder; not needed for demo tasks")
    parser.add_argument("--data", default="", help="folder with the tasks' files; nothing: from the Hub")
    parser.add_argument("--output", required=True)
    parser.add_argument("--tasks", default="agnews,glue/sst2")
    parser.add_argument("--seeds", default="13,21,42")
    parser.add_argument("--methods", default="default,dfo-lora,fireworks,nevergrad:PSO,sep-cma")
    parser.add_argument("--budget", type=int, default=3000)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--read-only", action="store_true", help="print what is there; run nothing")
    arguments = parser.parse_args()
    methods, tasks = arguments.methods.split(","), arguments.tasks.split(",")
    scores = {}
    for method in methods:
        for task in tasks:
            found = [cell(arguments, method, task, int(seed)) for seed in arguments.seeds.split(",")]
            scores[task, method] = [run for run in found if run is not None]
    print(table(scores, methods, tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
