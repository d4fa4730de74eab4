"""Do lm-evaluation-harness and this library say the same of a model and its adapter? Needs `pip install lm_eval[hf]`.

python -m scripts.agree_lm_eval --model MODEL --data DATA --tasks superglue/rte,superglue/copa,glue/sst2 --limit 40

Without `--adapter` one with random factors is made, so that there is something to agree on. Printed is a line per task:
examples, equal predictions, the largest difference of a margin (a class score minus that of the first class), and how
far margins spread; of generated answers, equal texts. The exit code is 1 where predictions differ or margins do by more
than `--tolerance`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from dfolora import api
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.tools.lm_eval import export


def random_adapter(model: str, folder: Path, size: float = 0.02, seed: int = 0) -> str:
    """Save an adapter of query, key and output maps whose factors are random."""
    language_model = models.load(model, dtype="float32")
    adapter = adapters.attach(language_model, 4, ["qk", "o"])
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int, size: float) -> torch.Tensor:
        return size * torch.randn(1, rows, columns, generator=generator)

    for index, layer in enumerate(adapter.layers):
        factors = {
            name: (draw(4, module.in_features, module.in_features**-0.5), draw(module.out_features, 4, size))
            for name, module in layer.modules.items()
        }
        adapter.write(index, factors)
    adapter.save(folder, {})
    return str(folder)


def ours(task: str, options: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A line per example: what this library predicts."""
    file = folder / "ours.jsonl"
    api.evaluate(task=task, predictions=str(file), **options)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def theirs(model: str, adapter: str, exported: str, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Task -> a line per example, in order: what the harness logs."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "peft": adapter, "dtype": "float32"},
        tasks=names,
        task_manager=TaskManager(include_path=exported, include_defaults=False),
        batch_size=8,
        device="cpu",
        log_samples=True,
        bootstrap_iters=0,
    )
    return {name: sorted(results["samples"][name], key=lambda line: line["doc_id"]) for name in names}


def class_scores(sample: dict[str, Any]) -> list[float]:
    """Class scores from the log-probabilities that the harness logs, as this library defines them."""
    doc = sample["doc"]
    sums = [float(response[0]) for response in sample["filtered_resps"]]
    if "tokens" not in doc:
        return sums
    means = [total / count for total, count in zip(sums, doc["tokens"], strict=True)]
    classes = doc["classes"]
    return [max(m for m, c in zip(means, classes, strict=True) if c == k) for k in range(max(classes) + 1)]


def compare(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """Equal predictions, the largest difference of a margin, the largest margin."""
    found: dict[str, float] = {"examples": len(mine), "equal": 0, "difference": 0.0, "spread": 0.0}
    for line, sample in zip(mine, other, strict=True):
        if "scores" not in line:
            found["equal"] += line["prediction"] == sample["filtered_resps"][0].split("\n")[0].strip()
            continue
        a, b = [score for score in line["scores"] if score is not None], class_scores(sample)
        found["equal"] += a.index(max(a)) == b.index(max(b))
        margins = [(x - a[0], y - b[0]) for x, y in zip(a, b, strict=True)]
        found["difference"] = max(found["difference"], *(abs(x - y) for x, y in margins))
        found["spread"] = max(found["spread"], *(abs(x) for x, _ in margins))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--tasks", default="superglue/rte,superglue/copa,glue/sst2")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    chosen = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        adapter = chosen.adapter or random_adapter(chosen.model, Path(scratch) / "adapter")
        options = {"model": chosen.model, "data": chosen.data, "test_limit": chosen.limit, "dtype": "float32"}
        made = export(lm_eval=f"{scratch}/tasks", tasks=chosen.tasks, **options)
        logged = theirs(chosen.model, adapter, made["folder"], list(made["tasks"]))
        print("| task | examples | equal predictions | largest difference of a margin | largest margin |")
        print("|---|---|---|---|---|")
        for task, name in zip(chosen.tasks.split(","), made["tasks"], strict=True):
            found = compare(ours(task, {**options, "adapter": adapter}, Path(scratch)), logged[name])
            counts = f"{found['examples']} | {found['equal']}"
            print(f"| {task} | {counts} | {found['difference']:.1e} | {found['spread']:.2f} |", flush=True)
            worst = max(worst, found["difference"], math.inf if found["equal"] < found["examples"] else 0.0)
    return int(worst > chosen.tolerance)


if __name__ == "__main__":
    sys.exit(main())
