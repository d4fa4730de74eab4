"""Subspace ``frozen-a``: a module reads its inputs through a random A; the search moves B along random directions."""

from __future__ import annotations

import math

from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter import LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.directions import normal, whitened


class FrozenA(Subspace):
    """A random and fixed, B = a random projection of z. The layer's d numbers are shared out among its modules."""

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(normal(seed, f"{module.name}/a", rank, module.in_features).to(x.device), x)

    def build(self, dim: int) -> None:
        modules = self.layer.modules
        if dim < len(modules):
            raise UserError(f"subspace_dim: {dim} cannot work; each of a layer's {len(modules)} modules needs one")
        shares = [dim // len(modules) + (i < dim % len(modules)) for i in range(len(modules))]
        self.dim = dim
        self.slices: dict[str, slice] = {}
        self.projection: dict[str, Tensor] = {}
        start = 0
        for (name, module), share in zip(modules.items(), shares, strict=True):
            self.slices[name] = slice(start, start + share)
            start += share
            std = self.scale * self.out_std[name] / math.sqrt(self.rank * share)
            self.projection[name] = std * self.normal(f"{name}/b", share, self._row_count(module) * self.rank)

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        return (z[:, self.slices[name]] @ self.projection[name]).view(len(z), self._row_count(module), self.rank)
