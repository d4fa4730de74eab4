"""Tune one model on several tasks, seeds and methods at equal budget, and print the table of test scores.

    python -m scripts.few_shot_table --model MODEL --data DATA --output runs/table \\
        --tasks agnews,glue/sst2 --seeds 13,21,42 --methods default,dfo-lora,fireworks

A method is ``default``, ``first-order``, ``hybrid``, ``full-parameter``, a preset or an optimizer's name, and may bring
flags of its own (``"guided --population 4 --visit 2"``). Every cell is an ordinary run folder below --output: finished
ones are read, interrupted ones go on, so the script can be stopped and started at will.

With ``--rates 0.02,0.05,0.15`` a zeroth-order estimator runs with each of them, and the rate whose runs do
best on the dev sets, on average over the seeds, stands for it in the table; ``--rates-first-order`` are those of
``first-order`` and ``hybrid``, whose AdamW steps along exact gradients. The test sets have no say: only runs that stand
in the table are scored on them, once (``test.json`` in the run's folder), and the bare model once per task and seed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import dfolora
from dfolora.opening import with_demo
from dfolora.optimizers import options_of
from dfolora.runs.description import base_settings
from dfolora.runs.files import write_text
from dfolora.runs.progress import Display
from dfolora.settings.build import saved, tune_settings
from dfolora.settings.methods import METHODS
from dfolora.settings.presets import PRESETS
from dfolora.settings.yaml_file import read_yaml

FIRST_ORDER = ("first-order", "hybrid")
FREE = ("output", "extend", "device", "chunk_tokens")  # what may differ between a run that is there and the one asked


def options(method: str) -> dict[str, Any]:
    """What a method's name and flags mean to ``tune``: ``"guided --population 4"``."""
    name, *words = method.split()
    values: dict[str, Any] = {}
    if name in METHODS and name != "search":
        values["method"] = name
    elif name in PRESETS:
        values["preset"] = name
    elif name != "default":
        values["optimizer"] = name
    while words:
        flag = words.pop(0).removeprefix("--").replace("-", "_")
        values[flag] = words.pop(0) if words and not words[0].startswith("--") else True
    return values


def rates(arguments: argparse.Namespace, method: str) -> list[str]:
    """The learning rates that a method is tried with; one '' for its own."""
    name = method.split()[0]
    if name in FIRST_ORDER:
        return (arguments.rates_first_order or "").split(",")
    takes = name not in ("default", *METHODS, *PRESETS) and "lr" in options_of(name)
    return (arguments.rates if takes and "--lr" not in method else "").split(",")


def cell(arguments: argparse.Namespace, method: str, task: str, seed: int) -> dict[str, Any] | None:
    """A run, made now unless it is there, without test scores; None where it failed or is not to be made."""
    folder = Path(arguments.output) / slug(f"{task}-{method}-{seed}")
    asked = {"task": task, "seed": seed, "output": str(folder), "test_split": "none", "budget": arguments.budget}
    asked |= {"model": arguments.model, "data": arguments.data, "dtype": arguments.dtype, **options(method)}
    try:
        if (folder / "config.yaml").exists():
            refuse_other(folder, asked)
            if (folder / "scores.json").exists():
                return {**read_json(folder / "scores.json"), "folder": folder}
        if arguments.read_only:
            return None
        with Display() as display:
            if (folder / "config.yaml").exists():
                run = dfolora.tune(resume=folder, listener=display)
            else:
                run = dfolora.tune(**asked, listener=display)
        return {**run.scores, "folder": folder}
    except dfolora.UserError as error:
        print(f"{folder.name}: {error}", file=sys.stderr)
        return None


def refuse_other(folder: Path, asked: dict[str, Any]) -> None:
    """Raise UserError where the folder holds another run than the one asked for."""
    there = read_yaml(folder / "config.yaml", "output")
    wanted = saved(with_demo(tune_settings(**asked)))
    for name in sorted({*there, *wanted} - set(FREE)):
        if there.get(name) != wanted.get(name):
            raise dfolora.UserError(
                f"output: {str(folder)!r} holds a run with {name} {there.get(name)!r}, not {wanted.get(name)!r}; "
                "choose another folder"
            )


def tested(arguments: argparse.Namespace, run: dict[str, Any]) -> dict[str, Any] | None:
    """A run with its ``zero_shot`` and ``tuned`` test scores; None where they fail or are not to be made."""
    folder: Path = run["folder"]
    before = folder.parent / (slug(f"zero-shot-{run['task']}-{run['seed']}") + ".json")
    tuned = test_score(arguments, folder / "test.json", {"model": folder})
    base = tuned and test_score(arguments, before, base_settings(folder))
    return {**run, "tuned": tuned, "zero_shot": base} if tuned and base else None


def test_score(arguments: argparse.Namespace, path: Path, asked: dict[str, Any]) -> dict[str, float] | None:
    """The metrics of ``evaluate`` on the test split, kept in a file; None where it failed or is not to be run."""
    if not path.exists():
        if arguments.read_only:
            return None
        try:
            write_text(path, json.dumps(dfolora.evaluate(**asked)) + "\n")
        except dfolora.UserError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return None
    return read_json(path)["metrics"]


def slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def runs(arguments: argparse.Namespace, method: str, task: str) -> tuple[str, list[dict[str, Any]]]:
    """A method's runs over the seeds, with the learning rate that the dev sets like best; and that rate."""
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    tried = {}
    for rate in rates(arguments, method):
        given = f"{method} --lr {rate}" if rate else method
        found = [cell(arguments, given, task, seed) for seed in seeds]
        tried[rate] = [run for run in found if run is not None]
    best = max(tried, key=lambda rate: dev_score(tried[rate]))
    scored = [tested(arguments, run) for run in tried[best]]
    return best, [run for run in scored if run is not None]


def dev_score(found: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean over runs of the dev set's first metric, ties by the dev loss: the higher the better."""
    if not found:
        return float("-inf"), float("-inf")
    metric = statistics.mean(next(iter(run["dev_tuned"].values())) for run in found)
    return metric, -statistics.mean(run["dev_loss"] for run in found)


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def table(scores: dict[tuple[str, str], tuple[str, list[dict[str, Any]]]], methods: list[str], tasks: list[str]) -> str:
    """Markdown: mean ± sample standard deviation over seeds of the task's first metric on the test split."""
    lines = ["| task | method | rate | seeds | evaluations | zero-shot | tuned | change | token-layers | seconds |"]
    lines.append("|" + "---|" * 10)
    for task in tasks:
        for method in methods:
            rate, runs = scores[task, method]
            if not runs:
                continue
            before = [next(iter(run["zero_shot"].values())) for run in runs]
            after = [next(iter(run["tuned"].values())) for run in runs]
            change = [b - a for a, b in zip(before, after, strict=True)]
            seeds = ", ".join(str(run["seed"]) for run in runs)
            lines.append(
                f"| {task} | {method} | {rate} | {seeds} | {runs[0]['evaluations']} "
                f"| {spread(before)} | {spread(after)} "
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
    parser.add_argument("--rates", default="", help="learning rates to try with zeroth-order estimators")
    parser.add_argument("--rates-first-order", default="", help="the same for first-order and hybrid")
    parser.add_argument("--read-only", action="store_true", help="print what is there; run nothing")
    arguments = parser.parse_args()
    methods, tasks = arguments.methods.split(","), arguments.tasks.split(",")
    scores = {(task, method): runs(arguments, method, task) for method in methods for task in tasks}
    print(table(scores, methods, tasks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
