"""Random directions of probes, by address: the same (seed, step, index) is always the same direction.

MeZO (arXiv 2305.17333) keeps a seed in place of a direction and draws it again where it is needed. Released descendants
seed the global generator for that, once here and once for each tensor there, and so apply another direction than the
one they probed. Here a direction is a block of a counter-based generator (Philox; Salmon et al., SC 2011), addressed by
what it is for: drawn again in any order, by anybody, it is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from dfolora.errors import UserError, unknown
from dfolora.optimizers.base import Points

_DIRECTION, _PLANE = range(2)  # what a stream is drawn for


class Noise(ABC):
    """Random directions with mean 0 and variance 1 in every coordinate.

    Args:
        dim: d.
        seed: 0 to 2**32 - 1.
    """

    def __init__(self, dim: int, seed: int) -> None:
        self.dim = dim
        self.seed = seed

    def draw(self, step: int, count: int) -> Points:
        """(count, d): the directions of a step with the indices 0 to count - 1."""
        return np.stack([self.direction(step, index) for index in range(count)])

    @abstractmethod
    def direction(self, step: int, index: int) -> Points:
        """(d,): one direction, the same however often and in whatever order it is asked for."""

    def _bits(self, step: int, index: int, purpose: int = _DIRECTION) -> np.random.Philox:
        # The lowest word of the counter is left to the generator: 2**64 blocks for each address.
        return np.random.Philox(counter=[0, index, step, purpose], key=[self.seed, 0])

    def _normal(self, bits: np.random.Philox, *shape: int) -> Points:
        # RandomState, unlike Generator, promises the same stream in every numpy version.
        drawn: Points = np.random.RandomState(bits).standard_normal(shape)
        return drawn


class Gaussian(Noise):
    """N(0, I)."""

    def direction(self, step: int, index: int) -> Points:
        return self._normal(self._bits(step, index), self.dim)


class Rademacher(Noise):
    """+1 or -1 in every coordinate: all directions have the same length, sqrt(d)."""

    def direction(self, step: int, index: int) -> Points:
        words = self._bits(step, index).random_raw(-(-self.dim // 64))
        bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=self.dim)
        return 2 * bits.astype(np.float64) - 1


class Plane(Noise):
    """Gaussian within a random plane through zero, which is kept for a number of steps.

    SubZero (arXiv 2410.08989) draws Z of U Z V^T and keeps the orthonormal U and V of every weight matrix for about
    1000 of 20,000 steps. What is searched here is a vector, so the plane has one orthonormal basis Q (d, k):
    sqrt(d / k) Q w, w ~ N(0, I_k).

    Args:
        dim, seed: as for every noise.
        plane_dim: k; all of R^d where d is smaller.
        plane_steps: how many steps a plane is kept.

    Raises:
        UserError: a plane without dimensions or steps.
    """

    def __init__(self, dim: int, seed: int, plane_dim: int = 32, plane_steps: int = 10) -> None:
        super().__init__(dim, seed)
        for name, value in (("plane_dim", plane_dim), ("plane_steps", plane_steps)):
            if value < 1:
                raise UserError(f"{name}: {value} cannot work; the least is 1")
        self.plane_dim = min(plane_dim, dim)
        self.plane_steps = plane_steps
        self._last: tuple[int, Points] | None = None  # the basis in use, only to save time

    def basis(self, step: int) -> Points:
        """(d, k): orthonormal columns that span the plane of a step."""
        number = step // self.plane_steps
        if self._last is None or self._last[0] != number:
            spread = self._normal(self._bits(number, 0, _PLANE), self.dim, self.plane_dim)
            self._last = number, np.linalg.qr(spread)[0]
        return self._last[1]

    def direction(self, step: int, index: int) -> Points:
        inner = self._normal(self._bits(step, index), self.plane_dim)
        return np.sqrt(self.dim / self.plane_dim) * (self.basis(step) @ inner)


_SIMPLE: dict[str, type[Noise]] = {"gaussian": Gaussian, "rademacher": Rademacher}
NOISE_NAMES = (*_SIMPLE, "plane")


def make_noise(name: str, dim: int, seed: int, plane_dim: int | None = None, plane_steps: int | None = None) -> Noise:
    """The noise called ``name``.

    Raises:
        UserError: there is none of that name (near misses are suggested); a plane's setting for another noise.
    """
    if name not in NOISE_NAMES:
        raise unknown("noise", name, NOISE_NAMES)
    both = {"plane_dim": plane_dim, "plane_steps": plane_steps}
    settings = {key: value for key, value in both.items() if value is not None}
    if name == "plane":
        return Plane(dim, seed, **settings)
    for key in settings:
        raise UserError(f"{key}: it is for noise plane, not {name}")
    return _SIMPLE[name](dim, seed)
