"""Threads in which optimizers work ahead: a layer's next population is drawn while other layers are scored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

_BESIDE_A_GPU = 4


def threads_beside(device: torch.device) -> int:
    """How many threads can work ahead while the device scores populations.

    All layers' CMA-ES decompose their matrices in the same sweep, more than one thread can do while a GPU scores it.
    On a CPU a sweep is long, and every further thread would be taken from torch.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(_BESIDE_A_GPU, (os.cpu_count() or 1) - 1))


@contextmanager
def threads(count: int) -> Iterator[Executor]:
    """An executor of so many threads for ``Optimizer.ask_ahead``; numpy's linear algebra uses one each.

    However the block ends, what has not been begun is cancelled, so that no more than one ask a thread is waited for.

    numpy's BLAS would otherwise start a thread on every core for each eigendecomposition, beside torch's: with d = 500
    on two busy cores one took up to 1.9 s instead of 0.04 s. Its sums, and so the populations of CMA-ES, depend on the
    number of threads, too: with one they are the same on machines of few and of many cores.
    """
    libraries = ThreadpoolController()
    # A BLAS that numpy shares with torch (as conda installs MKL) is left alone: torch needs its threads.
    home = str(Path(np.__file__).parent)  # or beside it, in numpy.libs
    paths = [each["filepath"] for each in libraries.info() if each["filepath"].startswith(home)]
    worker = ThreadPoolExecutor(count, "ask-ahead")
    with libraries.select(filepath=paths).limit(limits=1):
        try:
            yield worker
        finally:
            worker.shutdown(wait=True, cancel_futures=True)
