"""Noise for billions of weights: any slice of any direction, the same numbers on every device, never a whole tensor.

MeZO (arXiv 2305.17333, Algorithm 1) draws z again from its seed wherever it is needed. A sequential generator makes
that depend on the order of the tensors, and released descendants seed it anew for each tensor, which gives equal-shaped
tensors the same noise, and another than was probed. Here each number has an address (seed, step, probe, parameter,
offset), and a counter-based generator (Philox4x64-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) turns addresses into bits.

16 bits choose one of 65,536 equally likely quantiles of the normal distribution. Integers and a table are the same on
every device, where logarithms and cosines are not. The price: |z| is at most 4.4, and z has 65,536 values.

Cost: numpy's own Philox on a CPU, a few nanoseconds a number; elsewhere the same generator in some 340 elementwise
operations on 64-bit integers for each 16 numbers, which a fused kernel would do many times faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIRECTION, ROUNDING = range(2)  # what a number is drawn for: half of the generator's key
_VALUES = 2**16
_PER_BLOCK = 16  # numbers in one block of the generator: four words of 64 bits
_MASK = 2**32 - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)  # the generator's constants, from the paper
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10


@dataclass(frozen=True)
class Address:
    """Where a stream of numbers starts.

    Attributes:
        seed: of the run, 0 to 2**32 - 1.
        step: of the run, from 0.
        probe: index of the direction within the step.
        parameter: index of the tensor.
        purpose: ``DIRECTION`` or ``ROUNDING``.
    """

    seed: int
    step: int
    probe: int
    parameter: int
    purpose: int = DIRECTION


def normal(address: Address, start: int, count: int, device: torch.device) -> Tensor:
    """(count,) float64: the numbers of a stream from ``start`` on, with mean 0 and variance 1."""
    if device.type == "cpu":
        return torch.from_numpy(_quantiles().take(_halves(address, start, count)))
    return _table(device)[philox_halves(address, start, count, device)]


def uniform(address: Address, start: int, count: int, device: torch.device) -> Tensor:
    """(count,) float64 within (0, 1), by steps of 2**-16."""
    if device.type == "cpu":
        halves = torch.from_numpy(_halves(address, start, count).astype(np.float64))
    else:
        halves = philox_halves(address, start, count, device).double()
    return (halves + 0.5) / _VALUES


def philox_halves(address: Address, start: int, count: int, device: torch.device) -> Tensor:
    """(count,) int64: the words of 16 bits of a stream, by integer arithmetic that is exact on every device."""
    first = start // _PER_BLOCK
    blocks = -(-(start + count) // _PER_BLOCK) - first
    # numpy counts up before it draws, and so does this.
    counter = torch.arange(first + 1, first + 1 + blocks, device=device)
    rest = (address.probe, address.step, address.parameter)
    words = [counter, *(torch.full_like(counter, word) for word in rest)]
    keys = [address.seed, address.purpose]
    for _ in range(_ROUNDS):
        (high, low), (other_high, other_low) = (_product(words[2 * i], _MULTIPLIERS[i]) for i in range(2))
        words = [
            other_high ^ words[1] ^ _signed(keys[0]), other_low, high ^ words[3] ^ _signed(keys[1]), low,
        ]  # fmt: skip
        keys = [(key + step) % 2**64 for key, step in zip(keys, _KEY_STEPS, strict=True)]
    halves = torch.stack([(word >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48)], -1)
    skipped = start - first * _PER_BLOCK
    return halves.flatten()[skipped : skipped + count]


def _halves(address: Address, start: int, count: int) -> NDArray[np.uint16]:
    """(count,): the same words from numpy's generator."""
    first = start // _PER_BLOCK
    blocks = -(-(start + count) // _PER_BLOCK) - first
    counter = [first, address.probe, address.step, address.parameter]
    words = np.random.Philox(counter=counter, key=[address.seed, address.purpose]).random_raw(4 * blocks)
    skipped = start - first * _PER_BLOCK
    return words.astype("<u8", copy=False).view("<u2")[skipped : skipped + count]


@cache
def _quantiles() -> NDArray[np.float64]:
    """(65536,): the middle of each slice of equal probability, scaled to variance 1; every value fits a float32."""
    inverse = NormalDist().inv_cdf
    upper = np.array([inverse(0.5 + (i + 0.5) / _VALUES) for i in range(_VALUES // 2)])
    # Rounded, so that a mathematical library's last digit cannot matter.
    upper = (upper / np.sqrt(np.square(upper).mean())).astype(np.float32).astype(np.float64)
    return np.concatenate([-upper[::-1], upper])


@cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(_quantiles()).to(device)


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 64 bits of the product of unsigned words, which torch has no type for: int64 wraps alike."""
    low_half, high_half = word & _MASK, (word >> 32) & _MASK
    low_factor, high_factor = factor & _MASK, factor >> 32
    cross, other = low_half * high_factor, high_half * low_factor
    carry = (((low_half * low_factor) >> 32) & _MASK) + (cross & _MASK) + (other & _MASK)
    # What is shifted is unsigned; masking drops the copies of the sign.
    high = high_half * high_factor + ((cross >> 32) & _MASK) + ((other >> 32) & _MASK) + (carry >> 32)
    return high, word * _signed(factor)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
