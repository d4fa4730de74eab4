"""Whether a run ends before its budget is spent: the dev score is good enough, or nothing gets better."""

from __future__ import annotations

import math

from dfolora.log import Line
from dfolora.settings.goal import read_goal


class Ending:
    """Reads the looks at the dev set and says when one is a reason to end.

    A log tells it all again, so that a run which is resumed ends where it would have ended.

    Args:
        stop_at: a dev score in percent, or ``loss=X``, a dev loss; '': none.
        patience: looks in a row without a better one after which the run ends; None: no limit.

    Attributes:
        reason: why the run ends, in a few words; '' while it goes on.
    """

    def __init__(self, stop_at: str = "", patience: int | None = None) -> None:
        self.goal, self.patience = read_goal(stop_at), patience
        self.reason = ""
        self._best = (-math.inf, -math.inf)
        self._waited = 0

    def see(self, line: Line) -> str:
        """Take a line of the log into account, and return ``reason``."""
        if line.dev is not None and line.dev["loss"] is not None:
            score, loss = float(line.dev["main"]), float(line.dev["loss"])
            if self.goal is not None and self.goal.is_reached(score, loss):
                self.reason = self.reason or f"the dev {self.goal} is reached"
            self._wait((score, -loss))
        elif line.dev is not None:
            self._wait((-math.inf, -math.inf))  # an adapter that broke the model is no better, whatever its score
        return self.reason

    def _wait(self, rank: tuple[float, float]) -> None:
        self._waited = 0 if rank > self._best else self._waited + 1
        self._best = max(self._best, rank)
        if self.patience is not None and self._waited >= self.patience:
            self.reason = self.reason or f"no better look at the dev set in {self._waited}"
