"""Directions of the last hidden state along which class scores are read, through whatever norm and head a model has."""

from __future__ import annotations

import torch
from torch import Tensor


def read_along(slopes: Tensor, scores: Tensor, differences: bool) -> Tensor:
    """The principal directions of the slopes of class scores, one less than there are classes: the logit lens.

    Args:
        slopes: (H, N, C) as ``ShiftEngine.end_slopes`` gives them.
        scores: (N, C), -inf where an example has no such class.
        differences: whether only differences of an example's scores matter.

    Returns:
        (K, H) float32, orthonormal.
    """
    absent = scores == -torch.inf
    slopes = slopes.masked_fill(absent | ~slopes.isfinite(), 0.0)
    if differences:
        mean = slopes.sum(-1, keepdim=True) / (~absent).sum(-1, keepdim=True)
        slopes = (slopes - mean).masked_fill(absent, 0.0)
    return torch.linalg.svd(slopes.flatten(1), full_matrices=False)[0].T[: max(1, scores.shape[-1] - 1)]
