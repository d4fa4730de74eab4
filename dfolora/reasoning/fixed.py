"""Predictors that put one fixed instruction behind every question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from dfolora.question import Family
from dfolora.reasoning.asker import Asker
from dfolora.reasoning.instructions import PLAN, STEP_BY_STEP, asked
from dfolora.reasoning.predictor import Predictor, Slot
from dfolora.reasoning.trace import Trace


class Fixed(Predictor):
    """One call with an instruction, and a second one where the reply announces no answer.

    Args:
        asker: what it asks by.
        instruction: stands behind every question.
    """

    def __init__(self, asker: Asker, instruction: str) -> None:
        super().__init__(asker)
        self.instruction = instruction

    def answer(self, traces: Sequence[Trace]) -> None:
        self.solve(traces, [asked(self.question_of(trace), self.instruction) for trace in traces])


class ZeroShotCoT(Fixed):
    """Think step by step (arXiv 2205.11916)."""

    def __init__(
        self, asker: Asker, instruction: Annotated[str, "stands behind every question"] = STEP_BY_STEP
    ) -> None:
        super().__init__(asker, instruction)

    @classmethod
    def slots(cls, family: Family) -> dict[str, Slot]:
        return {"solve": Slot((STEP_BY_STEP, PLAN[family]), lambda text: {"instruction": text})}


class PlanAndSolve(Fixed):
    """Make a plan and carry it out (arXiv 2305.04091), worded for the family of the questions."""

    def __init__(self, asker: Asker) -> None:
        super().__init__(asker, PLAN[asker.family])
