"""Displacements that are undone to the bit, and rounding by chance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dfolora.methods.full_parameter.rounding import DTYPES, bits, displace, replace, stochastic

HALVES = [torch.bfloat16, torch.float16]


def weights(dtype: torch.dtype, count: int = 20_000, size: float = 0.02) -> Tensor:
    return (size * torch.randn(count, generator=torch.Generator().manual_seed(0))).to(dtype)


def shifts(count: int = 20_000, size: float = 1e-3) -> Tensor:
    return size * torch.randn(count, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3])
def test_weights_return_to_the_bit(dtype: torch.dtype, size: float) -> None:
    x, d = weights(dtype), shifts(size=size)
    kept = x.clone()
    moved, residue = displace(x, d)
    assert torch.equal(x, kept)
    assert torch.equal(moved, (x.double() + d).to(dtype))
    assert torch.equal(bits(replace(moved, d, residue)), bits(kept))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kind_of_float_returns(dtype: torch.dtype) -> None:
    """Zeros of both signs, subnormals, powers of two and their neighbours, the largest, infinities and NaN."""
    info = torch.finfo(dtype)
    powers = [2.0**e for e in range(-12, 5)]
    single = [0.0, info.smallest_normal * info.eps, info.smallest_normal, info.tiny / 2, info.max, math.inf, math.nan]
    single += [p * f for p in powers for f in (1, 1 + info.eps, 1 - info.eps / 2)]
    x = torch.tensor([s * v for v in single for s in (1, -1)], dtype=torch.float64).to(dtype)
    for d in (0.0, 1e-30, 1e-3, -0.7, 300.0, info.max, math.inf, math.nan):
        shift = torch.full((len(x),), d, dtype=torch.float64)
        moved, residue = displace(x, shift)
        assert torch.equal(bits(replace(moved, shift, residue)), bits(x)), d


@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.float32, 0.02, 0.07), (torch.bfloat16, 0.02, 0.07)])
def test_what_is_kept_is_needed_and_small(dtype: torch.dtype, least: float, most: float) -> None:
    """Without the residue one weight in twenty would be wrong; it takes two bytes for each."""
    x, d = weights(dtype), shifts()
    moved, residue = displace(x, d)
    assert residue is not None
    wrong = bits(replace(moved, d, None)) != bits(x)
    assert least < wrong.double().mean() < most
    assert residue.nbytes < 1.1 * (2 * int(wrong.sum()) + 2 * len(x) / 256)
    assert residue.nbytes < 0.1 * x.numel() * x.element_size()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_by_chance_is_right_on_average(dtype: torch.dtype) -> None:
    """A tenth of the gap on top of a weight is followed one time in ten."""
    count = 100_000
    u = torch.rand(count, generator=torch.Generator().manual_seed(0)).double()
    for base in (1.0, -1.0, 0.02, -0.3, 0.0):
        x = torch.tensor(base, dtype=dtype)
        for sign in (1, -1):
            near = bits(x) + (1 if (sign > 0) == (base > 0) else -1) if base else None
            gap = 2.0**-24 if near is None else abs(float(near.view(dtype)) - float(x))
            if near is None and dtype is torch.bfloat16:
                gap = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
            rounded = stochastic(torch.full((count,), float(x) + 0.1 * sign * gap, dtype=torch.float64), u, dtype)
            moved = (rounded.double() - float(x)) / (sign * gap)
            assert set(moved.tolist()) == {0.0, 1.0}
            assert float(moved.mean()) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_by_chance_leaves_what_is_exact(dtype: torch.dtype) -> None:
    x = torch.cat([weights(dtype), torch.tensor([0.0, -0.0, 1.0, -2.0, 0.5, math.inf]).to(dtype)])
    for u in (1e-9, 0.5, 1 - 1e-9):
        assert torch.equal(bits(stochastic(x.double(), torch.full((len(x),), u).double(), dtype)), bits(x))
