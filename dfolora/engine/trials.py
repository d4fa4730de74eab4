"""Trying a shortcut on a model: run it, and keep it only if the model answers as it does without.

A trial never ends a run. Whatever it throws means that this model is run without the shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

# How far two readings of one model may be apart, in units of the largest: rounding, and no more.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
LOW_PRECISION_TOLERANCE = 0.05

# What a model raises when it is called in a way that it was not written for. (CUDA's own errors are RuntimeErrors.)
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ImportError, AssertionError)


def attempt(run: Callable[[], Result]) -> Result | None:
    """What ``run`` returns; None where the model refuses."""
    try:
        return run()
    except REFUSALS:
        return None


def agree(tried: Tensor | None, expected: Tensor, dtype: torch.dtype, noise: float = 0.0) -> bool:
    """Whether a trial gave what the plain model gives.

    Args:
        tried: its readings or scores; None where it was refused.
        expected: those of the plain model. Where they are -inf (a class that an example does not have), so must
            ``tried`` be; where one is NaN or +inf, nothing can be told and the answer is no.
        dtype: the model's, which decides how much is rounding.
        noise: how far two plain runs are known to be apart; three times that passes too.
    """
    if tried is None or tried.shape != expected.shape:
        return False
    absent = expected.isneginf()
    there, wanted = tried[~absent].float(), expected[~absent].float()
    if not bool(wanted.isfinite().all()) or not bool(tried[absent].isneginf().all()):
        return False
    if not wanted.numel():
        return True
    limit = max(TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE) * float(wanted.abs().max()), 3 * noise)
    return bool(((there - wanted).abs() <= limit).all())  # false for NaN


def poison(y: Tensor, spared: Tensor | None = None) -> Tensor:
    """``y`` with NaN wherever nobody is to look: whoever reads such a number cannot hide it.

    Args:
        y: of any shape.
        spared: bool, of the leading dimensions of ``y``: what stays as it is. None: nothing.
    """
    if spared is None:
        return torch.full_like(y, torch.nan)
    return y.masked_fill(~spared[(..., *[None] * (y.dim() - spared.dim()))], torch.nan)
