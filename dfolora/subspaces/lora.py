"""Subspace ``lora``: every number of A and of B, in the units that MeZO's rates are given in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dfolora.models.adapter import LoraModule
from dfolora.subspaces.directions import generator
from dfolora.subspaces.factors import BothFactors


class Lora(BothFactors):
    """A and B in the units of ordinary LoRA, which is where MeZO's learning rates and epsilons apply.

    As MeZO releases it (arXiv 2305.17333): A starts uniform in +-1/sqrt(in), which is PyTorch's Kaiming default, B at
    zero, and their product counts 2 ``scale`` times: alpha / r = 16 / 8.
    """

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        uniform = 2 * torch.rand(rank, module.in_features, generator=generator(seed, f"{module.name}/a")) - 1
        return uniform / math.sqrt(module.in_features)

    def _a_unit(self, name: str) -> Tensor:
        return torch.ones(1, device=self.device)

    def _b_unit(self, name: str) -> float:
        return 2 * self.scale
