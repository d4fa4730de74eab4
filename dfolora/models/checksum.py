"""Checksums of weights, by which a model is known again."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def sum_of_bits(weight: Tensor) -> int:
    """The sum of a tensor's bits as whole numbers of 32 bits, which does not depend on the order of adding."""
    bits = weight.detach().flatten().contiguous().view(torch.uint8)
    whole = bits[: len(bits) // 4 * 4].view(torch.int32)
    return int(whole.sum(dtype=torch.int64)) + int(bits[len(bits) // 4 * 4 :].sum())


def checksum(model: nn.Module) -> str:
    """16 hexadecimal digits that depend on every weight of a model, adapters included."""
    total = hashlib.blake2b(digest_size=8)
    for name, weight in model.named_parameters():
        total.update(f"{name} {sum_of_bits(weight)}".encode())
    return total.hexdigest()
