"""Private states of the global random generators, for libraries that draw from nothing else."""

# ruff: noqa: NPY002  (the legacy global generator is the very thing that is guarded here)

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class PrivateRng:
    """A private state of numpy's and Python's global generators, in force inside ``with rng.swapped():`` only.

    Code inside draws from a stream that continues from one block to the next; code outside never notices. Not for
    use by several threads at once: the generators stay global while a block runs.

    Args:
        seed: 0 to 2**32 - 1.
    """

    def __init__(self, seed: int) -> None:
        self._numpy = np.random.RandomState(seed).get_state(legacy=False)
        self._python = random.Random(seed).getstate()

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Swap the private states in, and back out however the block ends."""
        outer = np.random.get_state(legacy=False), random.getstate()
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        try:
            yield
        finally:
            self._numpy, self._python = np.random.get_state(legacy=False), random.getstate()
            np.random.set_state(outer[0])
            random.setstate(outer[1])
