"""What a baseline is: fitted on the few-shot set, then asked for predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from dfolora.baselines.few_shot import FewShot
from dfolora.errors import UserError
from dfolora.models.checkpoint import with_article
from dfolora.problems.encode import PromptEncoder
from dfolora.scoring import Predictions
from dfolora.task import KINDS, Example, Kind


class Baseline(ABC):
    """A plain way to a prediction, to compare a search with. Keyword parameters of the constructor are its options.

    Attributes:
        kinds: kinds of model that it works with.
        reads_weights: whether it asks the model at all; where not, nothing is loaded.
        classes_only: whether every example must have the same classes, named by label words or sentences.
    """

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    reads_weights: ClassVar[bool] = True
    classes_only: ClassVar[bool] = False

    def check(self, encoder: PromptEncoder, train: Sequence[Example]) -> None:
        """Raise UserError where it cannot serve this model, task or training set; the weights are not there yet."""
        name, task = type(self).__name__, encoder.task
        if encoder.kind not in self.kinds:
            raise UserError(
                f"baseline: {name} is not for {with_article(encoder.kind)} model, only for {', '.join(self.kinds)}"
            )
        if self.classes_only and task.new_tokens:
            raise UserError(
                f"baseline: {name} predicts classes, and the answers of {task.name!r} are generated; "
                "use zero-shot or in-context"
            )
        if self.classes_only and encoder.prompt.words is None:
            raise UserError(
                f"baseline: {name} needs classes that all examples share, and each one of {task.name!r} brings its own "
                "choices; use zero-shot or in-context"
            )

    @abstractmethod
    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        """Look at the few-shot set.

        Args:
            few_shot: model, examples, seed; ``train`` is for fitting, ``dev`` for choosing.

        Returns:
            What was chosen, for ``scores.json``: names and JSON values.
        """

    @abstractmethod
    def predict(self, examples: Sequence[Example]) -> Predictions:
        """Predict the class, or where answers are generated the text, of each example; their labels are hidden.

        Args:
            examples: ``few_shot.dev``, or others with label 0 throughout.
        """


def need_two_classes(name: str, task: str, train: Sequence[Example]) -> None:
    """Raise UserError where a training set holds one class only."""
    if len({example.label for example in train}) < 2:
        raise UserError(f"baseline: {name} needs two classes to tell apart; the training set of {task!r} holds one")
