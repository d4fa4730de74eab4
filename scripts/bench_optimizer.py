"""What a layer-wise search waits for CMA-ES in a generation, with and without threads that work ahead.

    python -m scripts.bench_optimizer

One CMA-ES for each layer, d = 500, 20 candidates, one generation a visit. Scoring is pretended: either asleep, as a
thread is that waits for a GPU, or adding small tensors without end, as a thread does that keeps a GPU busy; these
additions give Python's interpreter lock away a few hundred thousand times a second, and working threads take it.
Figures are milliseconds of a generation, and the smallest of several repetitions, as other work disturbs the clock:

    waited      by the clock, in calls of the optimizer
    processor   of that, what the searching thread itself computed, which other work disturbs little
    scored      by the clock, in scoring: more than was asked for is what the working threads took from it
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from dfolora.bench.optimizer_wait import waited
from dfolora.optimizers import make_optimizer
from dfolora.optimizers.ahead import threads


def additions(seconds: float) -> Callable[[], None]:
    """So many additions as take that long when nothing else runs."""
    tensor = torch.zeros(16)

    def add(count: int) -> None:
        for _ in range(count):
            torch.add(tensor, tensor)

    rates = []
    for _ in range(20):
        start = time.perf_counter()
        add(1000)
        rates.append(1000 / (time.perf_counter() - start))
    count = int(seconds * max(rates))
    return lambda: add(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="6,24")
    parser.add_argument("--threads", default="0,1,4", help="how many work ahead; 0: none")
    parser.add_argument("--milliseconds", type=float, default=10.0, help="of scoring")
    parser.add_argument("--generations", type=int, default=240)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = options.milliseconds / 1000
    scorings = {"asleep": lambda: time.sleep(seconds), "adding": additions(seconds)}
    print("scoring  layers  threads  waited  processor  scored")
    for name, score in scorings.items():
        for layers in map(int, options.layers.split(",")):
            for count in map(int, options.threads.split(",")):
                times = [measured(score, layers, count, options.generations) for _ in range(options.repetitions)]
                wait, processor, scored = (1000 * min(values) for values in zip(*times, strict=True))
                print(f"{name:7}  {layers:6}  {count:7}  {wait:6.2f}  {processor:9.2f}  {scored:6.2f}", flush=True)


def measured(score: Callable[[], None], layers: int, count: int, generations: int) -> tuple[float, float, float]:
    """Mean seconds of a generation: in calls of the optimizer by the clock and the processor, and in scoring."""
    optimizers = [make_optimizer("cma", 500, population=20, seed=layer) for layer in range(layers)]
    scored = []

    def timed() -> None:
        start = time.perf_counter()
        score()
        scored.append(time.perf_counter() - start)

    with threads(max(1, count)) as workers:
        wait, processor = waited(optimizers, -(-generations // layers), timed, workers if count else None)
    return wait, processor, statistics.mean(scored)


if __name__ == "__main__":
    main()
