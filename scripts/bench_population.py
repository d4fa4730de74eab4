"""One generation of 20 candidates against 20 plain PEFT forwards with the weights set one by one.

    python -m scripts.bench_population

A RoBERTa of random weights (12 layers, width 256), 32 examples of 48 tokens, one thread, float32, layer-wise search
averaged over a sweep: ``dfolora bench`` with these settings, and what it says about its ``sequential`` row.
"""

from __future__ import annotations

import argparse
import json
import sys

from dfolora.bench import bench
from dfolora.runs.progress import bench_table
from dfolora.settings.model import BenchSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--layers", default="1,4,7,10", help="layers of the sweep; the default has a sweep's mean depth"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    config = BenchSettings(
        shape="roberta12", examples=32, tokens=48, population=20, layers=options.layers,
        repetitions=options.repetitions,
    )  # fmt: skip
    measured = bench(config, say=lambda line: print(line, file=sys.stderr))
    speed = {row["name"]: row["candidates_per_second"] for row in measured["rows"]}
    times = speed["layerwise"] / speed["sequential"]
    if options.json:
        return print(json.dumps({**measured, "times_sequential": times}))
    bench_table(measured)
    print(f"a generation of 20: {times:.2f} times faster than one candidate at a time")


if __name__ == "__main__":
    main()
