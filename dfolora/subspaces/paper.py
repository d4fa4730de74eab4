"""Subspace ``paper``: random projections to both A and B, as DFO-LoRA was released."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter import Factors, LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.directions import generator


class Paper(Subspace):
    """DFO-LoRA as released (arXiv 2403.01754): z in equal slices, one for each A and each B.

    Entries of the projections to A are N(0, (scale s / sqrt(d))^2), s the standard deviation of the hidden states that
    enter the layer (of the embedding matrix for the first), scale = alpha / sigma in the release's terms; those to B
    keep a linear layer's default, uniform in +-1/sqrt(d / slices), except in the first layer, where they follow A.
    z = 0 is a saddle: the loss is even in the A and B slices, so the first steps carry no direction.
    """

    linear = False

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> None:
        return None

    def build(self, dim: int) -> None:
        slices = 2 * len(self.layer.modules)
        if dim < slices:
            raise UserError(f"subspace_dim: {dim} cannot work; the paper's subspace cuts it into {slices} slices")
        self.share = dim // slices
        self.dim = self.share * slices
        self.a_projection, self.b_projection = {}, {}
        first = next(part for part in self.layer.name.split(".") if part.isdigit()) == "0"
        for name, module in self.layer.modules.items():
            std = self.scale * self.hidden_std / math.sqrt(dim)
            self.a_projection[name] = std * self.normal(f"{name}/a", self.share, self.rank * module.in_features)
            size = self._row_count(module) * self.rank
            if first:
                self.b_projection[name] = std * self.normal(f"{name}/b", self.share, size)
            else:
                bound = 1 / math.sqrt(self.share)
                uniform = torch.rand(self.share, size, generator=generator(self.seed, f"{name}/b")).to(self.device)
                self.b_projection[name] = bound * (2 * uniform - 1)

    def factors(self, z: Tensor) -> Factors:
        z = z.to(self.device, torch.float32)
        out: Factors = {}
        for index, (name, module) in enumerate(self.layer.modules.items()):
            a = z[:, 2 * index * self.share :][:, : self.share] @ self.a_projection[name]
            out[name] = (a.view(len(z), self.rank, -1), self._place(module, self.b_side(name, module, z)))
        return out

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        index = list(self.layer.modules).index(name)
        b = z[:, (2 * index + 1) * self.share :][:, : self.share] @ self.b_projection[name]
        return b.view(len(z), self._row_count(module), self.rank)
