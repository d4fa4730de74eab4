"""What ``stop_at`` says: a dev score that is enough, or a dev loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dfolora.errors import UserError


@dataclass(frozen=True)
class Goal:
    """A dev score to reach from below, in percent, or a dev loss to reach from above.

    Attributes:
        of: ``score`` or ``loss``.
        number: the least score, or the most loss.
    """

    of: str
    number: float

    def is_reached(self, score: float, loss: float) -> bool:
        """Whether a dev score and a dev loss are good enough."""
        return loss <= self.number if self.of == "loss" else score >= self.number

    def __str__(self) -> str:
        return f"{self.of} {self.number:g}"


def read_goal(text: str) -> Goal | None:
    """The goal that a text names: ``85``, ``score=85`` or ``loss=0.3``; None for ''.

    Raises:
        UserError: it names none.
    """
    if not text:
        return None
    name, _, value = text.rpartition("=")
    try:
        goal = Goal(name.strip() or "score", float(value))
    except ValueError:
        goal = Goal("", math.nan)
    if goal.of not in ("score", "loss") or not math.isfinite(goal.number):
        raise UserError(f"stop_at: {text!r} is no goal; give a dev score in percent, such as 85, or loss=0.3")
    return goal
