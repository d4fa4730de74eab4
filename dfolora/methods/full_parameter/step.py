"""The record of one step on all weights: a few numbers that lead from the weights before it to those after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfolora.errors import UserError

NOISE = "philox4x64-normal16-1"  # named in every log: a change of the noise's numbers needs another name


@dataclass(frozen=True)
class Step:
    """x <- x - lr sum_k weights[k] z_k, with the z_k of this step.

    Attributes:
        step: from 0; with the run's seed and k it is the seed of z_k.
        lr: learning rate of this step.
        weights: {k: c_k}, the estimate of the gradient; empty where the step changed nothing.
        slopes: projected gradients.
        losses: of all probes in order; None stands for NaN or infinity.
    """

    step: int
    lr: float
    weights: dict[int, float]
    slopes: list[float]
    losses: list[float | None]

    def note(self) -> dict[str, Any]:
        """What a log must hold beside the losses, as JSON values."""
        return {"lr": self.lr, "weights": {str(k): c for k, c in self.weights.items()}, "slopes": self.slopes}

    @classmethod
    def from_note(cls, step: int, losses: list[float | None], note: Mapping[str, Any] | None) -> Step:
        """The step that gave a note.

        Raises:
            UserError: no step gives that.
        """
        try:
            if note is None:
                raise ValueError("there is none")
            weights = {int(k): float(c) for k, c in note["weights"].items()}
            slopes = [float(slope) for slope in note["slopes"]]
            lr = float(note["lr"])
            if not all(map(math.isfinite, (lr, *weights.values(), *slopes))) or not all(
                0 <= k < 2**32 for k in weights
            ):
                raise ValueError("a number that no step has")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(f"resume: the note of generation {step + 1} is not that of a step ({error})") from error
        return cls(step, lr, weights, slopes, losses)


def finite(losses: list[float]) -> list[float | None]:
    """Losses for the log, None for NaN and infinity."""
    return [loss if math.isfinite(loss) else None for loss in losses]
