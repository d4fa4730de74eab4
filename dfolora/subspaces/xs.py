"""Subspace ``xs``: a small matrix between the main directions of each weight itself (LoRA-XS)."""

from __future__ import annotations

import math

from torch import Tensor

from dfolora.models.adapter import LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.directions import top_svd, whitened


class Xs(Subspace):
    """LoRA-XS (arXiv 2405.17604): A = top right singular vectors of W, B = U R with R (r, r) = z; d = modules x r^2."""

    draws = False

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(top_svd(module, rank)[1].to(x.device), x)

    def build(self, dim: int) -> None:
        self.dim = len(self.layer.modules) * self.rank**2
        self.left = {name: top_svd(module, self.rank)[0].to(self.device) for name, module in self.layer.modules.items()}

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        index = list(self.layer.modules).index(name)
        r = z.view(len(z), -1, self.rank, self.rank)[:, index]
        left = self.left[name]  # (rows, r), orthonormal columns
        return (self.scale * self.out_std[name] * math.sqrt(len(left)) / self.rank) * (left @ r)
