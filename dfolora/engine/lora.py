"""One LoRA module scoring a whole population: the base product on all rows, the low-rank part by batched products.

Row order is candidate-major: row p * R + i is row i of candidate p, so (P * R, T, in) is (P, R * T, in) without a copy.
Candidates are never merged into the base weights: in bfloat16 a step below 2^-9 of a weight would vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.models.adapter import LoraModule


def population_forward(base: nn.Module, a: Tensor, b: Tensor, shared_input: bool) -> Callable[..., Tensor]:
    """A forward of W + B A in which every candidate has factors of its own.

    Args:
        base: the linear map W (out, in) without its adapter.
        a: (P, r, in); a view expanded over P is recognised and multiplied once.
        b: (P, out, r).
        shared_input: True where all candidates are known to have equal inputs here (the tuned layer's query and key):
            then W x is computed for one candidate and all A sides in one product.

    Returns:
        forward(x (P * R, ..., in)) -> (P * R, ..., out).
    """
    population, rank, _ = a.shape
    same_a = a.stride(0) == 0 or population == 1
    a_side = a[0].T if same_a else a.reshape(population * rank, -1).T  # (in, r) or (in, P r)
    b_side = b.mT  # (P, r, out)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        per_candidate = x.shape[0] // population
        lead = x.shape[:-1]
        if shared_input:
            one = x[:per_candidate].reshape(-1, x.shape[-1])  # (R T, in)
            y = base(one)
            u = one @ a_side
            # (P, R T, r)
            u = u.expand(population, *u.shape) if same_a else u.view(-1, population, rank).transpose(0, 1)
            return torch.baddbmm(y.expand(population, *y.shape), u, b_side).view(*lead, y.shape[-1])
        y = base(x)
        flat = x.reshape(population, -1, x.shape[-1])  # (P, R T, in)
        u = flat @ a_side if same_a else torch.bmm(flat, a.mT)
        return torch.baddbmm(y.view(population, -1, y.shape[-1]), u, b_side).view(*lead, y.shape[-1])

    return forward


def incumbent_forward(module: LoraModule, active: bool) -> Callable[..., Tensor]:
    """A forward for ``module`` with the factors it holds now, or of the bare base where these add nothing."""
    base = module.lora.base_layer
    if not active:
        return base.forward
    a, b = module.factors()
    # One set of factors for many rows: W + B A costs less than a pass over the output, wherever rounding allows it.
    mergeable = type(base) is nn.Linear and base.weight.dtype == torch.float32

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if mergeable and x.numel() > base.weight.numel():
            return nn.functional.linear(x, torch.addmm(base.weight, b, a), base.bias)
        y = base(x)
        u = x.reshape(-1, x.shape[-1]) @ a.T.to(x.dtype)
        return y.view(-1, y.shape[-1]).addmm_(u, b.T.to(x.dtype)).view(y.shape)

    return forward


def shared_forward(linear: nn.Module, population: int) -> Callable[..., Tensor]:
    """A forward for a plain linear map whose inputs are equal for all candidates (the tuned layer's value)."""
    original = linear.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        per_candidate = x.shape[0] // population
        y = original(x[:per_candidate])
        return y.repeat(population, *[1] * (y.dim() - 1))

    return forward
