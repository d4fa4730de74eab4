"""The runs that are tortured, and what makes two of them the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.forked import Ended, Process

# What a clock decides, or how warm caches of hidden states are, which a resumed run has to fill again.
_COST = {"seconds", "chain", "token_layers", "dev_token_layers", "forwards", "backwards"}
_PLACE = {"run", "adapter", "model_folder"}
_BASE = ["tune", "--shots", "4", "--test-limit", "12", "--seed", "5"]
_SEARCH = ["--population", "4", "--budget", "40", "--dev-every", "8", "--subspace-dim", "24"]


def _search(*more: str) -> list[str]:
    return [*_BASE, "--method", "search", *_SEARCH, *more]


# One of every method, optimizer, subspace and thing to tune; each subspace with another optimizer.
CASES: dict[str, list[str]] = {
    "cma, pca": _search("--optimizer", "cma"),
    "tangent": [*_BASE, "--method", "tangent", "--budget", "60"],
    "first-order": [*_BASE, "--method", "first-order", "--budget", "16", "--dev-every", "3", "--lr", "0.01"],
    "hybrid": [*_BASE, "--method", "hybrid", "--budget", "24", "--dev-every", "6", "--lr", "0.01"],
    "full-parameter, spsa": [*_BASE, "--method", "full-parameter", "--budget", "12", "--dev-every", "4"],
    "sep-cma, full": _search("--optimizer", "sep-cma", "--subspace", "full"),
    "soft prompt, cma": _search("--tune", "prompt"),
    "fireworks, frozen-a": _search("--optimizer", "fireworks", "--subspace", "frozen-a"),
    "gauss-newton, aligned": _search("--optimizer", "gauss-newton", "--subspace", "aligned"),
    "deep prompt, es": _search("--tune", "deep-prompt", "--optimizer", "es"),
    "spsa, lora, joint": _search("--optimizer", "spsa", "--subspace", "lora", "--mode", "joint"),
    "gated prompt, spsa": _search("--tune", "ipl", "--optimizer", "spsa"),
    "full-parameter, guided": [
        *_BASE, "--method", "full-parameter", "--optimizer", "guided", "--budget", "24", "--dev-every", "6",
    ],
    "guided, factors, minibatch": _search("--optimizer", "guided", "--subspace", "factors", "--batch", "3"),
    "greedy, xs": _search("--optimizer", "greedy", "--subspace", "xs"),
    "gated LoRA, cma": _search("--tune", "ipl-lora"),
    "fzoo, tiny, joint": _search("--optimizer", "fzoo", "--subspace", "tiny", "--mode", "joint"),
    "subzero, paper": _search("--optimizer", "subzero", "--subspace", "paper"),
    "random, bfloat16": _search("--optimizer", "random", "--dtype", "bfloat16"),
    "nevergrad:PSO": _search("--optimizer", "nevergrad:PSO", "--visit", "2"),
    "nevergrad:DE, hinge": _search("--optimizer", "nevergrad:DE", "--objective", "hinge"),
    "full-parameter, greedy": [
        *_BASE, "--method", "full-parameter", "--optimizer", "greedy", "--budget", "24", "--dev-every", "6",
    ],
    "losses that are no numbers": _search("--sigma", "1e30", "--selection", "sample"),
    "metric, early end": _search("--objective", "metric", "--patience", "3"),
}  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
        flags: of the command, without ``--output``.
        folder: of the run.
        seconds: it took.
        changes: of its files: how often one was opened to write, renamed, removed.
    """

    flags: list[str]
    folder: Path
    seconds: float
    changes: int


class Broken(Exception):
    """A run that is not as it should be; the message says how."""


def go_on(flags: list[str], folder: Path) -> list[str]:
    """The command that goes on with a folder, or begins where there is none."""
    if (folder / "config.yaml").is_file():
        return ["tune", "--resume", str(folder)]
    return [*flags, "--output", str(folder)]


def finish(flags: list[str], folder: Path) -> None:
    """Go on with a run until it is finished.

    Raises:
        Broken: it does not finish.
    """
    if (folder / "scores.json").is_file():
        return
    ended = Process(go_on(flags, folder)).wait()
    if ended.code != 0 or not (folder / "scores.json").is_file():
        raise Broken(f"going on ended with {told(ended)}")


def told(ended: Ended) -> str:
    """An end in one line."""
    return f"exit code {ended.code}{', it hung' if ended.hung else ''}: {' / '.join(ended.said[-3:])}"


def refused(ended: Ended) -> None:
    """Raise Broken unless a process ended with one line and exit code 2."""
    if ended.code != 2 or len(ended.said) != 1 or not ended.said[0].startswith("dfolora: "):
        raise Broken(f"it should be refused in one line, and ended with {told(ended)}")


def same(whole: Path, other: Path) -> None:
    """Raise Broken unless two finished runs have the same log, weights, predictions and scores, bit for bit."""
    one, two = _log(whole), _log(other)
    if one != two:
        at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        raise Broken(f"logs differ from line {at + 1} on")
    if (first := _scores(whole)) != (second := _scores(other)):
        raise Broken(f"scores differ: {', '.join(name for name in first if first[name] != second.get(name))}")
    names = [file.relative_to(whole) for file in sorted(whole.rglob("*")) if file.is_file()]
    there = [file.relative_to(other) for file in sorted(other.rglob("*")) if file.is_file()]
    if names != there:
        raise Broken(f"other files: {', '.join(map(str, set(names) ^ set(there)))}")
    for name in names:
        alike = name.suffix == ".safetensors" or name.name.endswith("predictions.jsonl")
        if alike and (whole / name).read_bytes() != (other / name).read_bytes():
            raise Broken(f"{name} differs")


def stopped(whole: Path, folder: Path) -> None:
    """Copy a finished run as if it had been killed after its last generation."""
    shutil.copytree(whole, folder)
    for name in ("scores.json", "predictions.jsonl", "zero_shot_predictions.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for name in ("adapter", "model"):
        shutil.rmtree(folder / name, ignore_errors=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def phase(folder: Path) -> str:
    """How far a run had come when it died."""
    if not folder.exists():
        return "start-up"
    log = folder / "log.jsonl"
    lines = log.read_bytes().count(b"\n") if log.exists() else 0
    if lines == 0:
        return "first look"
    return "saving" if (folder / "adapter").exists() or (folder / "model").exists() else "steps"


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in _COST} for line in lines]


def _scores(folder: Path) -> dict[str, Any]:
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return {name: value for name, value in scores.items() if name not in _COST | _PLACE}
