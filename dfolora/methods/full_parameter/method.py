"""The method that tunes all weights without gradients: what the MeZO papers call FT.

The weights of a run are a few numbers for each step, in the notes of its log: with the weights that it began with they
give those of any step, without a forward.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dfolora.errors import UserError
from dfolora.log import Line, Step
from dfolora.methods.full_parameter.full_parameter import FullParameter, Loss
from dfolora.methods.full_parameter.step import Step as WeightStep
from dfolora.methods.method import Method
from dfolora.models.bare import Bare
from dfolora.problems.problem import Problem
from dfolora.settings.methods import FullParameterSettings

BEST_SHARE = 0.5


class AllWeights(Method[Problem[Bare]]):
    """Tunes every weight by a zeroth-order estimator. The model stays at the last step, whichever was best.

    Attributes:
        weights: what moves the model.
        chosen: fingerprint of the weights that the dev set likes best so far.
    """

    def __init__(self, problem: Problem[Bare], settings: FullParameterSettings) -> None:
        """Find the weights.

        Args:
            problem: on a model without an adapter.
            settings: of the run.

        Raises:
            UserError: the base model's own loss is not a number; a model whose weights cannot be moved.
        """
        super().__init__(problem, settings.evaluations, settings.dev_every)
        problem.check_base()
        problem.engine.verify({})
        problem.engine.reset_counts()
        self.size = settings.size
        self._batch: Tensor | None = None
        self.weights = mover(settings, problem.adapter.model, lambda: problem.loss(self._batch))
        self.chosen = self.weights.base

    def step(self, before: Line) -> Step:
        self._batch = self.problem.draw(before.generation)
        here = self.weights.point.fingerprint()
        step = self.weights.step()
        return Step(here, step.losses, note=step.note())

    def repeat(self, before: Line, line: Line) -> None:
        if self.weights.point.fingerprint() != line.checksum:
            raise UserError(
                f"resume: the weights before generation {line.generation} are not those of the log; "
                "the model, or a version in environment.json, has changed"
            )
        self.weights.repeat(WeightStep.from_note(before.generation, line.losses, line.note))

    def origin(self) -> dict[str, Any]:
        return self.weights.origin()

    def check_origin(self, note: dict[str, Any] | None) -> None:
        self.weights.check_origin(note)

    def look(self, line: Line) -> None:
        super().look(line)
        if self.problem.selection.best is line:
            self.chosen = self.weights.point.fingerprint()


def mover(settings: FullParameterSettings, model: Any, loss: Loss) -> FullParameter:
    """Make the object that moves a model's weights as the settings say."""
    return FullParameter(
        model,
        loss,
        settings.optimizer,
        settings.population,
        settings.sigma,
        settings.lr,
        settings.seed,
        settings.paper_scale,
        BEST_SHARE if settings.best_share is None else settings.best_share,
    )


def move_to(lines: list[Line], generation: int, chosen: str, weights: FullParameter) -> None:
    """Move a model from where a run began to where it was after a number of generations.

    Args:
        lines: the log of the run.
        generation: how many.
        chosen: fingerprint of the weights that must come out.
        weights: of the model.

    Raises:
        UserError: other weights come out.
    """
    weights.check_origin(lines[0].note)
    for line in lines[1 : generation + 1]:
        weights.repeat(WeightStep.from_note(line.generation - 1, line.losses, line.note))
    if weights.point.fingerprint() != chosen:
        raise UserError("model: the log does not lead to the weights that were chosen; has the model changed?")
