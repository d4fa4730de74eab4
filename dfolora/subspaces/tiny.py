"""Subspace ``tiny``: a handful of numbers mix fixed random matrices between the main directions of each weight."""

from __future__ import annotations

import math

from torch import Tensor

from dfolora.models.adapter import LoraModule
from dfolora.subspaces.xs import Xs


class Tiny(Xs):
    """TinyLoRA (arXiv 2602.04118): A as in ``xs``, B = U sum_i z_i P_i, P_i (r, r) random and fixed, one set a module.

    d is ``subspace_dim``. With ``mode="joint"`` the same d numbers serve all layers, so that 13 to 1,000 stand for the
    whole model; one layer at a time, each has d of its own.
    """

    draws = True
    shared = True

    def build(self, dim: int) -> None:
        super().build(dim)
        self.dim = dim
        self.mixed = {name: self.normal(f"{name}/mixed", dim, self.rank**2) for name in self.layer.modules}

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        r = (z @ self.mixed[name]).view(len(z), self.rank, self.rank) / math.sqrt(self.dim)
        left = self.left[name]  # (rows, r), orthonormal columns
        return (self.scale * self.out_std[name] * math.sqrt(len(left)) / self.rank) * (left @ r)
