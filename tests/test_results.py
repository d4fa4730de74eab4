"""The figures of the default on real weights: tables and README say what the rows of the runs say."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUNS = [json.loads(line) for line in (ROOT / "docs" / "results" / "default.jsonl").read_text("utf-8").splitlines()]


def score(run: dict[str, Any]) -> float:
    """The task's first metric."""
    return float(next(iter(run["test"].values())))


def large(value: float) -> str:
    return f"{value:.1e}".replace("e+0", "e") if value else ""


def test_the_table_is_that_of_the_runs() -> None:
    found = defaultdict(list)
    for run in RUNS:
        found[run["model"], run["task"], run["method"]].append(run)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    part = page[page.index("## The default on real weights") : page.index("## Real weights, real data")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    model = task = ""
    for row in rows[2:]:
        model, task = row[0] or model, row[1] or task
        runs = sorted(found[model, task, row[2].strip("*")], key=lambda run: run["seed"])
        scores = [score(run) for run in runs]
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        assert row[3] == ", ".join(str(run["seed"]) for run in runs), row
        assert row[4] == f"{statistics.mean(scores):.1f}{spread}", row
        assert row[5] == large(statistics.mean(run["token_layers"] for run in runs)), row
    assert len(rows) - 2 == 34


def test_the_readme_quotes_the_runs() -> None:
    one = {(r["model"], r["task"], r["method"], r["seed"]): r for r in RUNS}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = " ".join(text[text.index("- **The default** is ahead") :].split("\n- `")[0].split())
    encoder, causal = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"
    tasks = ("glue/sst2", "glue/mrpc", "snli", "agnews")

    def mean(method: str, what: Any) -> float:
        return statistics.mean(what(one[encoder, task, method, seed]) for task in tasks for seed in (13, 21, 42))

    ours, theirs, linear = (mean(method, score) for method in ("default", "first-order", "logistic-regression"))
    assert f"{ours:.1f} against {theirs:.1f}" in said
    assert f"(logistic regression {linear:.1f})" in said
    work = [mean(method, lambda run: run["token_layers"]) for method in ("default", "first-order")]
    assert f"for {100 * work[0] / work[1]:.0f} % of its work" in said
    for name, task in (("SST-2", "mezo/sst2"), ("CB", "mezo/cb"), ("AG News", "agnews")):
        default, first = one[causal, task, "default", 13], one[causal, task, "first-order", 13]
        assert f"{name} {score(default):.1f} against {score(first):.1f}" in said
        assert default["token_layers"] < 0.1 * first["token_layers"]
