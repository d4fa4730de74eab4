"""How long a search waits for its optimizer, of which a part is done while other layers are scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
import torch

from dfolora.optimizers import Optimizer


def waited(
    optimizers: Sequence[Optimizer], sweeps: int, score: Callable[[], object], workers: Executor | None
) -> tuple[float, float]:
    """Mean seconds of a generation that pass in calls of the optimizer: by the clock, and of this thread's processor.

    What other threads take from ``score`` is in neither: they share Python's interpreter lock with it.

    Args:
        optimizers: one for each layer; they take turns, as with ``--visit 1``.
        sweeps: generations of each, after two that are not counted.
        score: stands for the scoring of a population; its losses are random.
        workers: threads that draw populations ahead; None: all is done when asked.
    """
    generator = torch.Generator().manual_seed(0)
    times = []
    now = lambda: np.array([time.perf_counter(), time.thread_time()])  # noqa: E731
    for sweep in range(sweeps + 2):
        for optimizer in optimizers:
            start = now()
            z = optimizer.ask()
            spent = now() - start
            score()
            losses = torch.rand(len(z), generator=generator)
            start = now()
            optimizer.tell(losses)
            if workers is not None:
                optimizer.ask_ahead(workers)
            optimizer.incumbent()
            spent += now() - start
            if sweep >= 2:
                times.append(spent)
    clock, processor = np.mean(times, axis=0)
    return float(clock), float(processor)
