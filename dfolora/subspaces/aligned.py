"""Subspace ``aligned``: a module moves its output along the directions that class scores are read along."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter import LoraModule
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.directions import principal_directions, whitened


class Aligned(Subspace):
    """A = the main directions of a module's inputs where answers are read, B = D' Z; d = modules x directions x r.

    The rows of D are orthonormal: first the directions of the last hidden state along which class scores are read, one
    less than there are classes (the logit lens), then random ones. Where a model cannot be started behind its last
    block all are random. For modules that write into the residual stream.
    """

    target = "o"
    reads_scores = True

    def __init__(
        self,
        *arguments: Any,
        directions: Annotated[int, "of a module's output; those beyond the number of classes less one are random"] = 4,
        **common: Any,
    ) -> None:
        self.directions = directions
        super().__init__(*arguments, **common)

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(principal_directions(x, rank), x)

    def build(self, dim: int) -> None:
        least = min(self._row_count(module) for module in self.layer.modules.values())
        if not 1 <= self.directions <= least:
            raise UserError(f"directions: {self.directions} cannot work; the adapted modules allow 1 to {least}")
        self.dim = len(self.layer.modules) * self.directions * self.rank
        self.out: dict[str, Tensor] = {}
        for name, module in self.layer.modules.items():
            rows = self._row_count(module)
            read = self.read_along.to(self.device)
            if len(read) and read.shape[1] != rows:
                raise UserError(
                    f"subspace: aligned is for modules that write into the residual stream, such as those of the "
                    f"targets o and down; {name!r} gives {rows} numbers, not {read.shape[1]}"
                )
            drawn = self.normal(f"{name}/directions", self.directions, rows)
            joined = torch.cat([read, drawn])[: self.directions] if len(read) else drawn
            self.out[name] = torch.linalg.qr(joined.T.double())[0].float()

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        z = z.view(len(z), -1, self.directions, self.rank)[:, list(self.layer.modules).index(name)]
        out = self.out[name]
        return (self.scale * self.out_std[name] * math.sqrt(len(out) / (self.directions * self.rank))) * (out @ z)
