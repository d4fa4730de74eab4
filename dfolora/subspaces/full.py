"""Subspace ``full``: every number of B is searched."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfolora.models.adapter import LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.frozen_a import FrozenA


class Full(Subspace):
    """A random and fixed, B = z itself: for estimators that are at home in many dimensions."""

    a_side = FrozenA.a_side

    def build(self, dim: int) -> None:
        sizes = {name: self._row_count(module) * self.rank for name, module in self.layer.modules.items()}
        starts = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
        self.slices = {name: slice(a, b) for name, a, b in zip(sizes, starts, starts[1:], strict=False)}
        self.dim = starts[-1]

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        b = z[:, self.slices[name]] * (self.scale * self.out_std[name] / math.sqrt(self.rank))
        return b.view(len(z), self._row_count(module), self.rank)
