"""What an optimizer is told about a generation: a loss for each candidate, and more where it wants more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """The result of scoring P candidates on N examples with at most C classes.

    Attributes:
        losses: (P,) float32 on the CPU; lower is better.
        scores: (P, N, C) float32 on the CPU, the class scores; -inf where an example has no such class. None where
            the optimizer does not want them, or there are none.
        example_losses: (P, N) float32 on the CPU; None likewise.
        loss_of_scores: the objective on these very examples: (K, N, C) to (K,), differentiable; None without scores.
    """

    losses: Tensor
    scores: Tensor | None = None
    example_losses: Tensor | None = None
    loss_of_scores: Callable[[Tensor], Tensor] | None = None
