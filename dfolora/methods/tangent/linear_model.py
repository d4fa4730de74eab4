"""Class scores as a linear function of a module's weights, from probes of a few of its outputs' directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfolora.optimizers.linear_scores import LinearScores

_MOST_DIRECTIONS = 512  # of the kernel's, the leading ones; a few-shot set of C classes has no more than N C
_LEAST_EIGENVALUE = 1e-9  # of the largest
_HALVINGS = 14
_MOST_PENALTY, _LEAST_PENALTY = 1e3, 1e-8


@dataclass(frozen=True)
class Slopes:
    """How scores change with what is added to a module's output at some rows.

    Attributes:
        inputs: (R, in) float32, what enters the module where each row is read.
        rows: (N, C) int64, the row that each score depends on; -1: on none.
        slopes: (K, N, C) float64, change of each score for a unit step along each direction at its row.
    """

    inputs: Tensor
    rows: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class Move:
    """What the linear model recommends.

    Attributes:
        updates: for each module (K, in) float32, what to add to A of an update B A whose B holds the directions.
        promised: the loss that the linear model has there.
        penalty: that led to it.
    """

    updates: list[Tensor]
    promised: float
    penalty: float


class LinearModel:
    """The scores S + J a, a being all entries of the updates A (K, in) of several modules.

    A direction q at row i with input x changes a score by (slope along q) (row of A . x), so that J consists of
    products of slopes and inputs and never has to be made: all that the fit needs is the kernel J J', for each module
    the products of slopes times the products of inputs. The modules count alike: each kernel is divided by its mean
    over examples, and the mean over modules is taken (a neural tangent kernel, arXiv 1806.07572, of a few directions).

    Args:
        scores: (N, C) float32; -inf for classes that an example does not have.
        modules: for each module the slopes of one or more sets of rows.
    """

    def __init__(self, scores: Tensor, modules: Sequence[Sequence[Slopes]]) -> None:
        self._scores, self._modules = scores.double(), modules
        size = scores.numel()
        total = torch.zeros(size, size, dtype=torch.float64)
        self._scales: list[float] = []
        for sets in modules:
            kernel = _kernel(sets, size)
            scale = float(kernel.diagonal().sum()) / len(scores) * len(modules)
            self._scales.append(1 / scale if scale > 0 and math.isfinite(scale) else 0.0)
            if self._scales[-1]:
                total += kernel * self._scales[-1]
        values, vectors = torch.linalg.eigh(total)
        keep = values > _LEAST_EIGENVALUE * values[-1].clamp(min=0)
        keep[: max(0, size - _MOST_DIRECTIONS)] = False
        self._roots, self._vectors = values[keep].sqrt(), vectors[:, keep]

    def fit(self, loss: Callable[[Tensor], Tensor], share: float, least: float = 0.0) -> Move:
        """The smallest updates whose promised loss is a share of the present one.

        They minimise loss(S + J a) + penalty / 2 |a|^2, the penalty being the largest with which the loss promised is
        no more than ``share`` of the present one, or ``least`` where that is more.

        Args:
            loss: the objective on these examples, differentiable: (1, N, C) to (1,).
            share, least: see above.
        """
        columns = (self._vectors * self._roots).T.reshape(-1, *self._scores.shape)
        linear = LinearScores(torch.cat([self._scores[None], self._scores + columns]), loss)
        wanted = max(share * linear.loss(torch.zeros(len(columns)).double().numpy()), least)
        low, high = math.log(_LEAST_PENALTY), math.log(_MOST_PENALTY)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if linear.loss(linear.optimum(math.exp(middle))) > wanted:
                high = middle
            else:
                low = middle
        found = linear.optimum(math.exp(low))
        dual = self._vectors @ (torch.from_numpy(found) / self._roots)  # a = J' dual
        updates = [
            torch.stack([_update(part, dual) for part in sets]).sum(0) * scale
            for sets, scale in zip(self._modules, self._scales, strict=True)
        ]
        # A module whose inputs are no numbers has a scale of 0 and stays as it is.
        return Move([update.nan_to_num(0.0).float() for update in updates], linear.loss(found), math.exp(low))


def _kernel(sets: Sequence[Slopes], size: int) -> Tensor:
    """(N C, N C) float64: products of the changes of two scores, over all entries of a module's update."""
    total = torch.zeros(size, size, dtype=torch.float64)
    for left in sets:
        for right in sets:
            inputs = left.inputs.double() @ right.inputs.double().T
            products = inputs[left.rows.flatten().clamp(min=0)][:, right.rows.flatten().clamp(min=0)]
            total += products * (_flat(left).T @ _flat(right))
    return total


def _update(part: Slopes, dual: Tensor) -> Tensor:
    """(K, in): the entries of J' dual that a module has."""
    weights = _flat(part) * dual  # (K, N C)
    of_row = torch.zeros(len(weights), len(part.inputs), dtype=torch.float64)
    of_row.index_add_(1, part.rows.flatten().clamp(min=0), weights)
    return of_row @ part.inputs.double()


def _flat(part: Slopes) -> Tensor:
    """(K, N C), 0 where a score depends on no row."""
    return part.slopes.masked_fill(part.rows < 0, 0.0).flatten(1)
