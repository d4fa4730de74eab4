"""Curves of runs, read from their logs: score and loss against work and time, and what each layer gained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfolora.comparison.cell import read_json
from dfolora.errors import UserError

Array = Any
"""A numpy array; the shape stands beside it."""
POINTS = 60


@dataclass(frozen=True)
class Curve:
    """What one run did, step by step.

    Attributes:
        looks: (L, 3) float64: token-layers, seconds and the dev set's score of the best adapter so far, for each look.
        losses: (G, 3) float64: token-layers, seconds and the lowest loss so far, for each generation.
        gains: layer -> how far its generations brought the lowest loss down; generation 1 has nothing to lower.
    """

    looks: Array
    losses: Array
    gains: dict[int, float]


@dataclass(frozen=True)
class Line:
    """Mean and spread of several runs at the same places.

    Attributes:
        x, mean, sd: (POINTS,) float64; the spread is 0 for a single run.
    """

    x: Array
    mean: Array
    sd: Array


@dataclass(frozen=True)
class Group:
    """The runs of one method on one task, over its seeds."""

    model: str
    task: str
    method: str
    curves: list[Curve]

    def line(self, what: str, against: str) -> Line | None:
        """``score`` or ``loss`` against ``token-layers`` or ``seconds``; None where no run has any.

        Every run is a staircase, read at the same places; one that has ended stays where it was.
        """
        column = {"token-layers": 0, "seconds": 1}[against]
        steps = [curve.looks if what == "score" else curve.losses for curve in self.curves]
        steps = [each for each in steps if len(each) > (0 if what == "score" else 1)]
        if not steps:
            return None
        first, last = max(each[0, column] for each in steps), max(each[-1, column] for each in steps)
        x = np.linspace(first, last, POINTS)
        rows = [each[np.searchsorted(each[:, column], x, side="right") - 1, 2] for each in steps]
        spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else np.zeros(POINTS)
        return Line(x, np.mean(rows, axis=0), spread)

    def gains(self) -> dict[int, float]:
        """Layer -> mean over runs of what it gained; {} where the runs have no layers."""
        layers = sorted({layer for curve in self.curves for layer in curve.gains})
        return {layer: float(np.mean([curve.gains.get(layer, 0.0) for curve in self.curves])) for layer in layers}


def read_curve(run: Path) -> Curve:
    """Read the log of a run, finished or not.

    Raises:
        UserError: there is none, or it is damaged.
    """
    looks: list[tuple[float, float, float]] = []
    losses: list[tuple[float, float, float]] = []
    gains: dict[int, float] = {}
    score, lowest = -np.inf, np.inf
    try:
        for text in (run / "log.jsonl").read_bytes().split(b"\n")[:-1]:
            line = json.loads(text)
            place = (float(line["token_layers"]), float(line["seconds"]))
            if line["dev"] is not None:
                score = max(score, float(line["dev"]["main"]))
                looks.append((*place, score))
            told = [loss for loss in line["losses"] if loss is not None]
            if told:
                before, lowest = lowest, min(lowest, *told)
                losses.append((*place, lowest))
                if line["layer"] is not None and np.isfinite(before):
                    gains[line["layer"]] = gains.get(line["layer"], 0.0) + before - lowest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"folder: {str(run)!r} holds no log that can be read ({error})") from error
    shape = (-1, 3)
    return Curve(np.array(looks, dtype=float).reshape(shape), np.array(losses, dtype=float).reshape(shape), gains)


def groups_of(folders: Sequence[str | Path]) -> list[Group]:
    """The runs below folders, grouped by model, task and method.

    Args:
        folders: of comparisons (what their tables show) or of single runs.

    Raises:
        UserError: a folder that is neither, or nothing to draw in all of them.
    """
    found: dict[tuple[str, str, str], list[Curve]] = {}
    for folder in map(Path, folders):
        folder = folder.expanduser()
        if (folder / "results.json").is_file():
            for row in read_json(folder / "results.json").get("rows", []):
                for run in row["runs"]:
                    # Where the comparison was moved, its cells have moved with it.
                    cell = _below(folder, Path(run["folder"]))
                    if (cell / "run" / "log.jsonl").is_file():
                        key = (row["model"], row["task"], row["method"])
                        found.setdefault(key, []).append(read_curve(cell / "run"))
        elif (folder / "log.jsonl").is_file():
            scores = read_json(folder / "scores.json")
            method = scores.get("optimizer") or folder.name
            key = (Path(scores.get("model", "")).name, scores.get("task", ""), method)
            found.setdefault(key, []).append(read_curve(folder))
        else:
            raise UserError(f"folder: {str(folder)!r} holds neither a comparison (results.json) nor a run (log.jsonl)")
    if not found:
        raise UserError(f"folder: nothing to draw in {', '.join(map(str, folders))}: no run has a log yet")
    return [Group(*key, curves) for key, curves in found.items()]


def _below(folder: Path, cell: Path) -> Path:
    """The cell's folder below this one: the longest end of its path that is there."""
    for start in range(len(cell.parts)):
        if (here := folder.joinpath(*cell.parts[start + (cell.is_absolute() and start == 0) :])).is_dir():
            return here
    return cell
