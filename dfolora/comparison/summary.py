"""The results of a comparison: a row for each task and method, averages over tasks, differences, failures."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from dfolora.comparison.cell import Cell
from dfolora.comparison.statistics import Estimate, average, estimate, mean_sd
from dfolora.runs.versions import versions_of

COSTS = (
    "evaluations", "token_layers", "token_layers_with_dev", "seconds", "process_seconds", "processor_seconds",
    "peak_memory_bytes", "peak_gpu_memory_bytes",
)  # fmt: skip
"""What a row has a mean of; of memory the most."""
_PACKAGES = ("dfolora", "torch", "transformers", "peft", "numpy", "scipy")


class Row:
    """One method on one task: its cells over the seeds.

    Args:
        cells: those that the row stands for, finished or not.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.model, self.task, self.method = cells[0].model, cells[0].task, cells[0].method
        self.cells = list(cells)
        self.runs: dict[int, dict[str, Any]] = {cell.seed: cell.result() for cell in cells if cell.finished}
        self.right: dict[int, Any] = {}
        self.gold: dict[int, list[Any]] = {}
        for cell in cells:
            if cell.seed in self.runs:
                lines = cell.predictions()
                self.gold[cell.seed] = [line["gold"] for line in lines]
                self.right[cell.seed] = np.array(
                    [float(line["score"] if "score" in line else line["correct"]) for line in lines]
                )

    def estimate(self, seeds: Sequence[int], other: Row | None = None) -> Estimate | None:
        """The share of right answers in percent, or how much larger it is than that of another; None: no examples."""
        if not seeds or any(other is not None and other.gold[seed] != self.gold[seed] for seed in seeds):
            return None
        values = [100 * (self.right[s] - (other.right[s] if other is not None else 0.0)) for s in seeds]
        if any(len(each) == 0 for each in values):
            return None
        return estimate(values, all(self.gold[seed] == self.gold[seeds[0]] for seed in seeds))

    def common(self, other: Row) -> list[int]:
        """Seeds that both have."""
        return [seed for seed in self.runs if seed in other.runs]

    def described(self) -> dict[str, Any]:
        """The row for tables and files; scores are those of the task's first metric."""
        runs = list(self.runs.values())
        for run in runs:
            known = run["token_layers"] is not None
            run["token_layers_with_dev"] = run["token_layers"] + (run["dev_token_layers"] or 0) if known else None
        scores = [next(iter(run["metrics"].values())) for run in runs]
        dev = [next(iter(run["dev"].values())) for run in runs if run["dev"]]
        found: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "method": self.method,
            "choice": dict(self.cells[0].choice),
            "metric": next(iter(runs[0]["metrics"])) if runs else "",
            "examples": runs[0]["examples"] if runs else None,
            "seeds": list(self.runs),
            "failed": [cell.seed for cell in self.cells if cell.error],
            "score": _spread(scores),
            "dev": _spread(dev),
        }
        for name in COSTS:
            values = [run[name] for run in runs if run[name] is not None]
            how = max if name.startswith("peak") else np.mean
            found[name] = float(how(values)) if values else None
        return {**found, "runs": runs}


def summary(rows: Sequence[Row], failures: Sequence[Cell], against: str, about: dict[str, Any]) -> dict[str, Any]:
    """What ``results.json`` holds.

    Args:
        rows: task by task, zero-shot first.
        failures: cells that failed.
        against: the method that the others are compared with.
        about: what the comparison is: ``command`` and the like.
    """
    described, averages = [], []
    estimates: dict[tuple[str, str], list[tuple[Row, Estimate | None, Estimate | None]]] = {}
    for row in rows:
        reference = next((r for r in rows if (r.model, r.task, r.method) == (row.model, row.task, against)), None)
        own = row.estimate(list(row.runs))
        difference = None
        if reference is not None and reference is not row:
            difference = row.estimate(row.common(reference), reference)
        described.append({**row.described(), "difference": _described(difference)})
        estimates.setdefault((row.model, row.method), []).append((row, own, difference))
    for (model, method), found in estimates.items():
        scored = [(row, own) for row, own, _ in found if row.runs and own is not None]
        if len(found) < 2 or not scored:
            continue
        means = [next(each["score"]["mean"] for each in described if _is(each, row)) for row, _ in scored]
        whole = average([own for _, own in scored])
        differences = [difference for _, _, difference in found if difference is not None]
        averages.append(
            {
                "model": model,
                "method": method,
                "tasks": len(scored),
                "of": len(found),
                "score": float(np.mean(means)),
                "right": _described(whole),
                "difference": _described(average(differences)) if differences else None,
                "difference_tasks": len(differences),
                **{
                    name: _mean([next(e[name] for e in described if _is(e, row)) for row, _ in scored])
                    for name in ("evaluations", "token_layers", "token_layers_with_dev", "seconds")
                },
            }
        )
    return {
        **about,
        "against": against,
        "rows": described,
        "averages": averages,
        "failures": [
            {"cell": cell.name, "model": cell.model, "folder": str(cell.folder), "error": cell.error}
            for cell in failures
        ],
    }


def about(command: str, grid: Any) -> dict[str, Any]:
    """Command, versions and machine."""
    return {
        "command": command,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **versions_of(_PACKAGES)},
        "platform": platform.platform(),
        "split": grid.asked.test_split,
        "test_limit": grid.asked.test_limit,
    }


def _is(described: dict[str, Any], row: Row) -> bool:
    return all(described[name] == getattr(row, name) for name in ("model", "task", "method"))


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    mean, sd = mean_sd(values) if values else (None, None)
    return {"mean": mean, "sd": sd}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _described(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    low, high = found.interval
    return {"value": found.value, "low": low, "high": high, "p": found.p, "detectable": found.detectable}
