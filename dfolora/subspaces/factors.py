"""Subspace ``factors``: every number of A and of B is searched."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfolora.models.adapter import Factors, LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.frozen_a import FrozenA


class BothFactors(Subspace):
    """A and B themselves: A = the random A of ``frozen-a`` plus a change, B = the rest of z; r (in + out) per module.

    The change of A is in units of the root mean square of A's own row. To first order z changes the output like
    ``full``; at z ~ N(0, I), where A has changed as much as it was large, by sqrt(2) as much.
    """

    linear = False
    a_side = FrozenA.a_side

    def build(self, dim: int) -> None:
        self.slices: dict[str, tuple[slice, slice]] = {}
        start = 0
        for name, module in self.layer.modules.items():
            middle = start + self.rank * module.in_features
            end = middle + self.rank * self._row_count(module)
            self.slices[name] = slice(start, middle), slice(middle, end)
            start = end
        self.dim = start

    def factors(self, z: Tensor) -> Factors:
        z = z.to(self.device, torch.float32)
        out: Factors = {}
        for name, module in self.layer.modules.items():
            change = z[:, self.slices[name][0]].view(len(z), self.rank, -1) * self._a_unit(name)
            out[name] = (self.a[name] + change, self._place(module, self.b_side(name, module, z)))
        return out

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        return z[:, self.slices[name][1]].view(len(z), -1, self.rank) * self._b_unit(name)

    def _a_unit(self, name: str) -> Tensor:
        return self.a[name].square().mean(1, keepdim=True).sqrt()

    def _b_unit(self, name: str) -> float:
        return self.scale * self.out_std[name] / math.sqrt(self.rank)
