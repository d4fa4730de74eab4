"""Objectives: what is minimised, from class scores (P, N, C) to losses, always float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.registry import Registry
from dfolora.task import Example, Task

Objective = Callable[[Tensor, Tensor], Tensor]
"""(scores (P, N, C) float32, labels (N,) int64) -> losses (P, N) of each example, or (P,); lower is better."""


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Negative log-probability of the right class among the classes of its example, (P, N)."""
    log_probability = scores.log_softmax(-1)
    return -log_probability.gather(-1, labels.expand(scores.shape[0], -1)[..., None])[..., 0]


def hinge(scores: Tensor, labels: Tensor, margin: float = 2.0) -> Tensor:
    """Sum over wrong classes of max(0, score - right score + margin), (P, N).

    Margin 2 is what Black-Box Tuning (arXiv 2201.03514) and DFO-LoRA (arXiv 2403.01754) release.
    """
    index = labels.expand(scores.shape[0], -1)[..., None]
    gaps = (scores - scores.gather(-1, index) + margin).clamp(min=0)
    # The right class itself contributes exactly the margin.
    return gaps.sum(-1) - gaps.gather(-1, index)[..., 0]


def likelihood(scores: Tensor, labels: Tensor) -> Tensor:
    """Negative score of the right choice, (P, N), where scores are log-probabilities: wrong choices do not matter.

    How MeZO (arXiv 2305.17333) trains COPA and ReCoRD. Where each example has the one answer that it is taught (C = 1),
    it is the cross-entropy of that answer's tokens; among its classes the answer would always have probability 1.
    """
    right = scores.gather(-1, labels.expand(scores.shape[0], -1)[..., None])[..., 0]
    return (-right).masked_fill(scores.isnan().any(-1), torch.nan)


_OBJECTIVES = {
    "cross-entropy": (
        "dfolora.problems.objectives:cross_entropy",
        "negative log-probability of the right class among the classes",
    ),
    "hinge": ("dfolora.problems.objectives:hinge", "margin between the right class and the others, 2 wanted"),
    "likelihood": (
        "dfolora.problems.objectives:likelihood",
        "negative log-probability of the right answer of several tokens, whatever the others are",
    ),
    "metric": ("dfolora.problems.objectives:metric", "minus the task's own metric: no gradient, no scores needed"),
}
REGISTRY = Registry("objective", _OBJECTIVES, "dfolora.objectives")


def metric(task: Task, examples: Sequence[Example]) -> Objective:
    """Minus the task's metric of the predicted classes, (P,)."""

    def objective(scores: Tensor, labels: Tensor) -> Tensor:
        losses = [-task.main(task.measure(examples, row.tolist())) for row in scores.argmax(-1).cpu()]
        out = torch.tensor(losses, dtype=torch.float32, device=scores.device)
        # argmax of NaN is a class like any other; a candidate that broke the model must not be scored by luck.
        return out.masked_fill(scores.isnan().any(-1).any(-1), torch.nan)

    return objective


def make_objective(objective: str | Objective, task: Task) -> Callable[[Sequence[Example]], Objective]:
    """The objective for any examples of a task.

    Args:
        objective: a registered name, or a function (see ``Objective``).
        task: what the scores are of.

    Returns:
        examples -> objective of their scores.

    Raises:
        UserError: no objective of that name; one that needs classes where answers are generated.
    """
    if objective == "metric":
        return lambda examples: metric(task, examples)
    generates = task.new_tokens > 0
    if generates and objective == "hinge":
        raise UserError(
            "objective: hinge compares classes, and this task's answers are generated; "
            "choose cross-entropy (of the answer's tokens) or metric"
        )
    if generates and objective == "cross-entropy":
        return lambda examples: likelihood
    function: Any = REGISTRY.get(objective) if isinstance(objective, str) else objective
    if not callable(function):
        raise UserError(f"objective: {objective!r} is neither a name nor a function of scores and labels")
    return lambda examples: function


def mean_of(losses: Tensor) -> Tensor:
    """Losses (P, N) of each example, or (P,), to (P,)."""
    return losses.mean(-1) if losses.dim() == 2 else losses


def loss_of_scores(objective: Objective, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """An objective on some examples as a function of their scores on the CPU: (P, N, C) to (P,)."""
    labels = labels.cpu()
    return lambda scores: mean_of(check_result(objective(scores, labels), scores))


def check_result(found: Any, scores: Tensor) -> Tensor:
    """What an objective returned, if it is losses of the scores (P, N, C): (P,) or (P, N).

    Raises:
        UserError: it is something else.
    """
    shapes = (tuple(scores.shape[:1]), tuple(scores.shape[:2]))
    if not isinstance(found, Tensor) or tuple(found.shape) not in shapes:
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"objective: for scores of shape {tuple(scores.shape)} it gave {what}, "
            f"not a tensor of one of the shapes {shapes[0]}, {shapes[1]}"
        )
    return found
