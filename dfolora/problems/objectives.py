"""Class scores (P, N, C) to one loss per candidate (P,); lower is better. Always float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dfolora.errors import UserError, unknown

Objective = Callable[[Tensor, Tensor], Tensor]
"""(scores (P, N, C) float32, labels (N,) int64) -> losses (P,) float32."""


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-probability of the right class among the classes of its example."""
    log_probability = scores.log_softmax(-1)
    return -log_probability.gather(-1, labels.expand(scores.shape[0], -1)[..., None])[..., 0].mean(-1)


def hinge(scores: Tensor, labels: Tensor, margin: float = 2.0) -> Tensor:
    """Mean over examples of the sum over wrong classes of max(0, score - right score + margin).

    Margin 2 is what Black-Box Tuning (arXiv 2201.03514) and DFO-LoRA (arXiv 2403.01754) release.
    """
    index = labels.expand(scores.shape[0], -1)[..., None]
    gaps = (scores - scores.gather(-1, index) + margin).clamp(min=0)
    # The right class itself contributes exactly the margin.
    return (gaps.sum(-1) - gaps.gather(-1, index)[..., 0]).mean(-1)


def likelihood(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean negative score of the right choice, where scores are log-probabilities: the wrong choices do not matter.

    How MeZO (arXiv 2305.17333) trains COPA and ReCoRD. Where each example has the one answer that it is taught (C = 1),
    it is the cross-entropy of that answer's tokens; among its classes the answer would always have probability 1.
    """
    right = scores.gather(-1, labels.expand(scores.shape[0], -1)[..., None])[..., 0]
    return (-right.mean(-1)).masked_fill(scores.isnan().any(-1).any(-1), torch.nan)


def metric_objective(measure: Callable[[list[int]], float]) -> Objective:
    """The negative of any score of the predicted classes, such as the task's own metric: no gradient needed.

    Args:
        measure: predicted class per example -> score, higher is better.
    """

    def objective(scores: Tensor, labels: Tensor) -> Tensor:
        losses = [-measure(row.tolist()) for row in scores.argmax(-1).cpu()]
        out = torch.tensor(losses, dtype=torch.float32, device=scores.device)
        # argmax of NaN is a class like any other; a candidate that broke the model must not be scored by luck.
        return out.masked_fill(scores.isnan().any(-1).any(-1), torch.nan)

    return objective


_OBJECTIVES: dict[str, Objective] = {"cross-entropy": cross_entropy, "hinge": hinge, "likelihood": likelihood}
OBJECTIVE_NAMES = (*_OBJECTIVES, "metric")


def make_objective(name: str, measure: Callable[[list[int]], float], generates: bool = False) -> Objective:
    """The objective called ``name``; ``measure`` serves ``metric``.

    Args:
        name: one of ``OBJECTIVE_NAMES``.
        measure: as for ``metric_objective``.
        generates: whether answers are generated, so that there are no classes to compare.

    Raises:
        UserError: no objective of that name; one that needs classes where there are none.
    """
    if generates and name == "hinge":
        raise UserError(
            "--objective: hinge compares classes, and this task's answers are generated; "
            "choose cross-entropy (of the answer's tokens) or metric"
        )
    if generates and name == "cross-entropy":
        return likelihood
    if name == "metric":
        return metric_objective(measure)
    if name not in _OBJECTIVES:
        raise unknown("--objective", name, OBJECTIVE_NAMES)
    return _OBJECTIVES[name]
