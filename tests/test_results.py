"""The figures of the default on real weights: tables and README say what the rows of the runs say."""

from __future__ import annotations

import json
import re
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
    assert len(rows) - 2 == 30


def test_the_readme_quotes_the_runs() -> None:
    one = {(r["model"], r["task"], r["method"]): r for r in RUNS if r["seed"] == 13}
    pairs = [
        ("SmolLM2-135M-Instruct", "mezo/sst2"),
        ("SmolLM2-135M-Instruct", "mezo/cb"),
        ("all-MiniLM-L6-v2", "glue/sst2"),
        ("all-MiniLM-L6-v2", "glue/mrpc"),
    ]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = " ".join(text[text.index("- **The default** stands") :].split("\n- `")[0].split())
    quoted = re.findall(r"(\d+\.\d) against (\d+\.\d)", said)
    both = [(one[model, task, "default"], one[model, task, "first-order"]) for model, task in pairs]
    assert quoted == [(f"{score(ours):.1f}", f"{score(theirs):.1f}") for ours, theirs in both]
    assert "for a twelfth to a half of its work" in said
    share = [ours["token_layers"] / theirs["token_layers"] for ours, theirs in both]
    assert min(share) > 1 / 13
    assert max(share) < 0.55
    several = [score(r) for r in RUNS if (r["model"], r["task"], r["method"]) == (*pairs[2], "default")]
    assert f"{statistics.mean(several):.1f} ± {statistics.stdev(several):.1f}" in said
