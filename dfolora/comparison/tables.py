"""Results as tables: for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

HEAD = (
    "task", "method", "seeds", "score", "dev", "evaluations", "token-layers", "with dev", "seconds", "processor s",
    "peak MiB", "difference", "95 %", "p", "detectable",
)  # fmt: skip
SHORT = ("task", "method", "seeds", "score", "evaluations", "token-layers", "seconds", "difference", "95 %", "p")
AVERAGE_HEAD = (
    "method", "tasks", "average", "95 %", "evaluations", "token-layers", "seconds", "difference", "95 % of it", "p",
    "detectable",
)  # fmt: skip
SHORT_AVERAGE = ("method", "tasks", "average", "evaluations", "difference", "p")
EXPLAINED = (
    "Score: the task's first metric, mean ± sd over seeds. Seconds and token-layers: of the search, without and with "
    "looks at the dev set; processor seconds and peak memory: of the whole process. Difference: of right answers, in "
    "points, to `{against}` on the same examples, with the 95 % interval and p-value of a paired bootstrap over "
    "examples and seeds; detectable: the smallest difference that so many examples show at 5 % in 80 of 100 cases."
)


def cells_of(row: dict[str, Any]) -> dict[str, str]:
    """A row's columns as text; '' for what there is not."""
    score = spread(row["score"])
    if score and row["metric"] not in ("accuracy", ""):
        score += f" {row['metric']}"
    choice = "".join(f" ({name} {value})" for name, value in row["choice"].items())
    seeds = ", ".join(map(str, row["seeds"])) + "".join(f", {seed} failed" for seed in row["failed"])
    return {
        "task": row["task"],
        "method": row["method"] + choice,
        "seeds": seeds.removeprefix(", "),
        "score": score,
        "dev": spread(row["dev"]),
        "evaluations": number(row["evaluations"]),
        "token-layers": large(row["token_layers"]),
        "with dev": large(row["token_layers_with_dev"]),
        "seconds": number(row["seconds"]),
        "processor s": number(row["processor_seconds"]),
        "peak MiB": number(row["peak_memory_bytes"] and row["peak_memory_bytes"] / 2**20)
        + (f" + GPU {row['peak_gpu_memory_bytes'] / 2**20:.0f}" if row["peak_gpu_memory_bytes"] else ""),
        **difference_of(row["difference"], "95 %"),
    }


def average_of(row: dict[str, Any]) -> dict[str, str]:
    """The same for a row of averages over tasks."""
    right = row["right"]
    some = "" if row["tasks"] == row["of"] else f" of {row['of']}"
    return {
        "method": row["method"],
        "tasks": f"{row['tasks']}{some}",
        "average": f"{row['score']:.1f}",
        # Of right answers, which the average of other metrics need not lie in.
        "95 %": f"{right['low']:.1f} to {right['high']:.1f}",
        "evaluations": number(row["evaluations"]),
        "token-layers": large(row["token_layers"]),
        "seconds": number(row["seconds"]),
        **difference_of(row["difference"], "95 % of it"),
    }


def difference_of(found: dict[str, Any] | None, interval: str) -> dict[str, str]:
    if found is None:
        return {"difference": "", interval: "", "p": "", "detectable": ""}
    return {
        "difference": f"{found['value']:+.1f}",
        interval: f"{found['low']:+.1f} to {found['high']:+.1f}",
        "p": "< 0.001" if found["p"] < 0.001 else f"{found['p']:.3f}",
        "detectable": f"{found['detectable']:.1f}",
    }


def spread(values: dict[str, float | None]) -> str:
    mean, sd = values["mean"], values["sd"]
    if mean is None:
        return ""
    return f"{mean:.1f}" + (f" ± {sd:.1f}" if sd is not None else "")


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def large(value: float | None) -> str:
    return "" if value is None else "0" if not value else f"{value:.1e}".replace("e+0", "e")


def models_of(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in results["rows"]))


def heading(results: dict[str, Any]) -> list[str]:
    """What the tables are made of, in sentences."""
    versions = ", ".join(f"{name} {text}" for name, text in results["versions"].items())
    lines = [f"Made by `{results['command']}` with {versions}; {results['platform']}."]
    if results["split"] == "dev":
        lines.append("**The scores are those of the dev set**, which also chose the adapters.")
    if results["test_limit"]:
        lines.append(
            f"**Test sets are cut** to at most {results['test_limit']} examples, drawn once for all methods and seeds."
        )
    sizes = {row["task"]: row["examples"] for row in results["rows"] if row["examples"]}
    if sizes:
        lines.append("Examples: " + ", ".join(f"{task} {size}" for task, size in sizes.items()) + ".")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """The page ``results.md``."""
    out = ["# Comparison", "", *[line + "\n" for line in heading(results)], EXPLAINED.format(**results), ""]
    for model in models_of(results):
        rows = [cells_of(row) for row in results["rows"] if row["model"] == model]
        out += [f"## {model}", "", *_markdown(HEAD, rows), ""]
        averages = [average_of(row) for row in results["averages"] if row["model"] == model]
        if averages:
            out += ["Averages over tasks (the interval is that of right answers):", ""]
            out += [*_markdown(AVERAGE_HEAD, averages), ""]
    if results["failures"]:
        out += [
            "## Failed",
            "",
            *[f"- {each['model']}, {each['cell']}: {each['error']}" for each in results["failures"]],
        ]
    return "\n".join(out).rstrip() + "\n"


def _markdown(head: Sequence[str], rows: Sequence[dict[str, str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row[name].replace("|", "\\|") for name in head) + " |" for row in rows]


def csv_text(results: dict[str, Any]) -> str:
    """The file ``results.csv``: a line for each run, below comments that begin with #."""
    out = io.StringIO()
    out.writelines(f"# {line}\n" for line in heading(results))
    metrics = list(dict.fromkeys(name for row in results["rows"] for run in row["runs"] for name in run["metrics"]))
    costs = (
        "evaluations", "token_layers", "dev_token_layers", "seconds", "process_seconds", "processor_seconds",
        "peak_memory_bytes", "peak_gpu_memory_bytes", "folder",
    )  # fmt: skip
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "task", "method", "choice", "seed", "examples", *metrics, "dev", *costs])
    for row in results["rows"]:
        choice = " ".join(f"{name}={value}" for name, value in row["choice"].items())
        for run in row["runs"]:
            scores = [run["metrics"].get(name, "") for name in metrics]
            dev = next(iter(run["dev"].values()), "")
            who = [row["model"], row["task"], row["method"], choice, run["seed"], run["examples"]]
            writer.writerow([*who, *scores, dev, *("" if run[name] is None else run[name] for name in costs)])
    return out.getvalue()


def show(results: dict[str, Any]) -> None:
    """Print the tables on standard output; narrow terminals get fewer columns."""
    console = Console(emoji=False, markup=False, highlight=False)
    head = HEAD if console.width >= 150 else SHORT if console.width >= 100 else SHORT[:6]
    for model in models_of(results):
        rows = [cells_of(row) for row in results["rows"] if row["model"] == model]
        _show(console, model, head, rows)
        averages = [average_of(row) for row in results["averages"] if row["model"] == model]
        if averages:
            columns = AVERAGE_HEAD if console.width >= 130 else SHORT_AVERAGE
            _show(console, f"{model}, average over tasks", columns, averages)
    if results["against"] and "difference" in head:
        console.print(f"Differences are to {results['against']}.")
    for line in heading(results)[1:]:
        console.print(line.replace("**", ""))


def _show(console: Console, title: str, head: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    table = Table(title=title, box=None)
    for column in head:
        table.add_column(column, justify="left" if column in ("task", "method", "seeds") else "right")
    for row in rows:
        table.add_row(*(row[column] for column in head))
    console.print(table)
