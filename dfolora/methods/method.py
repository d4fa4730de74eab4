"""The base class of methods: one step, and how to repeat it from the log."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from torch import Tensor

from dfolora.log import Line, Step
from dfolora.problems.problem import Problem

LOOKS = 20  # at the dev set in a run of a method without sweeps, where ``dev_every`` does not say

P = TypeVar("P", bound=Problem[Any])


class Method(ABC, Generic[P]):
    """A way to tune a model. The loop calls ``step``, or ``repeat`` for the steps that the log already holds.

    Args:
        problem: what is minimised.
        budget: evaluations of the run.
        dev_every: evaluations between looks at the dev set; None: what suits the method.

    Attributes:
        size: evaluations that the next step takes at most.
        keeps_state: whether the log is not enough to go on, so that ``state`` is saved at every look.
    """

    size: int = 1
    keeps_state = False

    def __init__(self, problem: P, budget: int, dev_every: int | None = None) -> None:
        self.problem = problem
        self.budget = budget
        self.dev_every = dev_every

    @abstractmethod
    def step(self, before: Line) -> Step:
        """Do one step; ``before`` is the last line of the log."""

    @abstractmethod
    def repeat(self, before: Line, line: Line) -> None:
        """Reach the state after the step that wrote ``line``, without a forward.

        Raises:
            UserError: the line is not that of this run.
        """

    def remark(self) -> str:
        """A message for the user before the first step; '' for none."""
        return ""

    def origin(self) -> dict[str, Any] | None:
        """What to note in line 0 of the log: the state that ``repeat`` must start from."""
        return None

    def check_origin(self, note: dict[str, Any] | None) -> None:
        """Raise UserError if a log with that origin cannot be repeated here."""

    def look_is_due(self, before: Line, line: Line) -> bool:
        """Whether to look at the dev set after a step. A look at the end comes in any case."""
        every = self.dev_every or max(1, self.budget // LOOKS)
        last = line.evaluations + self.size > self.budget and not self.dev_every
        return last or line.evaluations // every > before.evaluations // every

    def look(self, line: Line) -> None:
        """Score the current adapter on the dev set, and keep it if it is the best so far."""
        self.problem.selection.look(line)

    def looks(self, evaluations: int) -> int:
        """How many looks at the dev set so many evaluations bring, about; 0: they are part of the steps."""
        return evaluations // (self.dev_every or max(1, self.budget // LOOKS))

    def trial(self) -> float | None:
        """Seconds that an evaluation takes, measured without a trace; None: only a step can tell."""
        return None

    def is_stuck(self, line: Line) -> bool:
        """Whether every further step would be the same, so that the run ends."""
        return False

    def state(self) -> dict[str, Tensor]:
        """Tensors that resuming needs beside the log."""
        return {}

    def restore(self, tensors: dict[str, Tensor], after: Line | None) -> None:
        """Load the tensors of ``state``, once the log has been repeated up to there.

        Args:
            tensors: of that state; {} where none was saved.
            after: the line that the log has after it, if it goes on.

        Raises:
            UserError: they are of another model or another run.
        """

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The context that the loop runs in."""
        try:
            yield
        finally:
            self.problem.close()
