"""What rounding does to a displaced weight, and how it is undone to the last bit.

x' = round(x + d) is not one to one: where |x'| lies above a power of two that |x| lies below, several x share one x'.
There are more floats near zero than around d, so no trick with bit patterns can make a shift of floats invertible, and
no method without any extra memory restores every weight. But where no such power is crossed, round(x' - d) is x, and d
can be drawn again. So each displacement is checked as it is made: where taking it back does not give the same bits, the
difference is written down, two bytes a weight. For weights of standard deviation 0.02 and d of 1e-3 that is one weight
in twenty; the share grows with d over the weights. Nothing is assumed of the arithmetic but that it repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = {
    torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16,
}  # fmt: skip
DTYPES = tuple(_BITS)
_ROW = 256  # a place within a row fits a byte
_FAR = -128  # stands for a difference that does not


@dataclass(frozen=True, slots=True)
class Residue:
    """The bits that a displacement cannot give back by itself, for one chunk of n weights, of which K do not return.

    Attributes:
        near: bytes: how many in each row of 256 weights (n / 256, int16); where in its row each one is (K, uint8); how
            far, as an integer, the right bits are from those that come back (K, int8), -128: see ``far``.
        far: the right bits themselves where they are too far, as integers of the weights' width; None: nowhere.
    """

    near: Tensor
    far: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.near.nbytes + (0 if self.far is None else self.far.nbytes)


def bits(x: Tensor) -> Tensor:
    """The same memory as integers of the same width."""
    return x.view(_BITS[x.dtype])


def displace(x: Tensor, d: Tensor) -> tuple[Tensor, Residue | None]:
    """Round to nearest of x + d, and what it takes to get x back.

    Args:
        x: (n,) weights of any dtype of ``DTYPES``; it stays as it is.
        d: (n,) float64.

    Returns:
        (n,) of x's dtype; None where nothing is lost.
    """
    moved = (x.double() + d).to(x.dtype)
    right, back = bits(x), bits(_taken_back(moved, d))
    lost = (right != back).nonzero()[:, 0]
    if not len(lost):
        return moved, None
    apart = right[lost].long() - back[lost].long()
    near = (apart > _FAR) & (apart < -_FAR)  # not abs, which the lowest integer does not have
    counts = torch.bincount(lost // _ROW, minlength=-(-len(x) // _ROW)).short()
    differences = torch.where(near, apart, _FAR).to(torch.int8)
    places = (lost % _ROW).to(torch.uint8)
    packed = torch.cat([counts.view(torch.uint8), places, differences.view(torch.uint8)])
    return moved, Residue(packed, None if near.all() else right[lost][~near])


def replace(moved: Tensor, d: Tensor, residue: Residue | None) -> Tensor:
    """What ``displace`` was given: (n,), equal to the last bit, the sign of zero included."""
    x = _taken_back(moved, d)
    if residue is None:
        return x
    rows = -(-len(x) // _ROW)
    counts = residue.near[: 2 * rows].view(torch.int16)
    places, differences = residue.near[2 * rows :].chunk(2)
    differences = differences.view(torch.int8)
    row = torch.arange(rows, device=x.device).repeat_interleave(counts.long())
    lost = row * _ROW + places.long()
    own = bits(x)
    own[lost] += differences.to(own.dtype)
    if residue.far is not None:
        own[lost[differences == _FAR]] = residue.far
    return x


def stochastic(exact: Tensor, u: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to one of the two neighbours, so that the mean is exact.

    A step of 1e-6 is nothing to a bfloat16 of 0.02, whose neighbours are 1e-4 away: rounded to nearest, all of a run's
    steps could vanish. Rounded like this one in a hundred of them counts, a hundredfold.

    Args:
        exact: (n,) float64.
        u: (n,) float64, uniform in (0, 1).
        dtype: one of ``DTYPES``.

    Returns:
        (n,) of ``dtype``; a value that it has is never changed.
    """
    near = exact.to(dtype)
    error = exact - near.double()
    # The next float away from zero is the next integer; from either zero on, the smallest of the error's sign.
    outward = (error > 0) == (near > 0)
    other = bits(near) + torch.where(outward, 1, -1).to(_BITS[dtype])
    tiny = bits(
        torch.full_like(near, torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps).copysign(error.to(dtype))
    )
    other = torch.where(near == 0, tiny, other).view(dtype)
    gap = (other.double() - near.double()).abs()
    return torch.where((error != 0) & (u * gap < error.abs()), other, near)


def _taken_back(moved: Tensor, d: Tensor) -> Tensor:
    return (moved.double() - d).to(moved.dtype)
