"""Directions that subspaces are made of: principal ones of the data, singular ones of a weight, random ones by name."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from dfolora.models.adapter import LoraModule


def principal_directions(x: Tensor, count: int) -> Tensor:
    """Leading eigenvectors (count, in) of the second moment of x (tokens, in), signs fixed, without a random start."""
    x = x.double()
    if len(x) < x.shape[1]:  # the smaller of the two Gram matrices has the same leading directions
        _, left = torch.linalg.eigh(x @ x.T)
        directions = (left.T @ x)[-count:].flip(0)
    else:
        _, vectors = torch.linalg.eigh(x.T @ x)
        directions = vectors.T[-count:].flip(0)
    directions = torch.nn.functional.normalize(directions, dim=1)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign()).float()


def normal(seed: int, what: str, *shape: int) -> Tensor:
    """Standard normal float32 on the CPU from a generator keyed by seed and name."""
    return torch.randn(*shape, generator=generator(seed, what))


def generator(seed: int, what: str) -> torch.Generator:
    """A torch generator on the CPU, seeded by a number and a name."""
    key = hashlib.blake2b(f"{seed}/{what}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def whitened(a: Tensor, x: Tensor) -> Tensor:
    """Rows of a scaled so that a x has mean square 1 over the tokens."""
    return a / (x @ a.T).square().mean(0).sqrt().clamp(min=1e-12)[:, None]


def top_svd(module: LoraModule, rank: int) -> tuple[Tensor, Tensor]:
    """U (rows, r) and V^T (r, in) of the largest singular values of the searched part of W."""
    weight = module.weight if module.rows is None else module.weight[module.rows.to(module.weight.device)]
    u, _, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    sign = vh[:rank].gather(1, vh[:rank].abs().argmax(1, keepdim=True)).sign()
    return (u[:, :rank] * sign.T).float(), (vh[:rank] * sign).float()
