"""What papers report, beside what we measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.settings.yaml_file import read_yaml


@dataclass(frozen=True)
class Published:
    """Rows of a published table.

    Attributes:
        source: where they stand.
        about: what was measured, and how that differs from ours.
        rows: method -> task -> score in percent, of the task's first metric.
    """

    source: str = ""
    about: str = ""
    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def read_published(path: Path) -> Published:
    """Read a file of published rows; without a file, there are none.

    Raises:
        UserError: it names no source, or a row has not one number for each task.
    """
    if not path.is_file():
        return Published()
    values = read_yaml(path, "published")
    tasks = [str(task) for task in values.get("tasks") or ()]
    if not values.get("source") or not tasks:
        raise UserError(f"published: {str(path)!r} must name its source and its tasks")
    rows = {}
    for name, scores in (values.get("rows") or {}).items():
        if not isinstance(scores, list) or len(scores) != len(tasks):
            raise UserError(f"published: {str(path)!r}: {name!r} needs {len(tasks)} numbers, one for each task")
        try:
            rows[str(name)] = {task: float(score) for task, score in zip(tasks, scores, strict=True)}
        except (TypeError, ValueError) as error:
            raise UserError(f"published: {str(path)!r}: {name!r} has {scores!r}, which are not all numbers") from error
    return Published(str(values["source"]), str(values.get("about") or ""), rows)


def side_by_side(results: Mapping[str, Any], published: Published) -> str:
    """A Markdown table of our rows, then of theirs, each marked as such; columns are the tasks, and their mean.

    Args:
        results: what ``dfolora compare`` returns.
        published: its rows for these tasks; a row that has none of them is left out.
    """
    rows: dict[tuple[str, str], dict[str, tuple[float, float | None]]] = {}
    tasks: list[str] = []
    for row in results["rows"]:
        if row["task"] not in tasks:
            tasks.append(row["task"])
        found = rows.setdefault((row["model"], row["method"]), {})
        if row["score"]["mean"] is not None:
            found[row["task"]] = row["score"]["mean"], row["score"]["sd"]
    lines = [["", "method", *tasks, "mean"], ["---"] * 2 + ["---:"] * (len(tasks) + 1)]
    lines += [["ours", f"{model}, {method}", *_cells(tasks, found)] for (model, method), found in rows.items()]
    theirs = {name: {task: (score, None) for task, score in scores.items()} for name, scores in published.rows.items()}
    theirs = {name: found for name, found in theirs.items() if found.keys() & set(tasks)}
    lines += [["theirs", name, *_cells(tasks, found)] for name, found in theirs.items()]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    if not published.rows:
        return text + "\nNo published rows: none has been checked against its source.\n"
    if not theirs:
        return text + "\nThe published rows are of other tasks.\n"
    return text + f"\nTheirs, not measured here: {published.source}. {published.about}.\n"


def _cells(tasks: Sequence[str], found: Mapping[str, tuple[float, float | None]]) -> list[str]:
    cells = []
    for task in tasks:
        score, sd = found.get(task, (None, None))
        cells.append("" if score is None else f"{score:.1f}" if sd is None else f"{score:.1f} ± {sd:.1f}")
    there = [found[task][0] for task in tasks if task in found]
    return [*cells, f"{sum(there) / len(there):.1f}" if tasks and len(there) == len(tasks) else ""]
