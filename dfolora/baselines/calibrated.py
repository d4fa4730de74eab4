"""The model as it is, with an offset for each class: many a prompt favours one label word whatever the text says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import Tensor

from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.errors import UserError
from dfolora.scoring import Predictions
from dfolora.task import Example
from dfolora.template import names

WAYS = ("threshold", "contextual")
CONTENT_FREE = ("N/A", "[MASK]", "")


class Calibrated(Baseline):
    """Adds an offset for each class to the scores of the model as it is.

    By ``threshold``, the offsets b minimise the cross-entropy of scores + b on the training set, plus
    ridge / 2 |b|^2. By ``contextual``, they undo what the model says where every field of the template holds no
    content ("N/A", "[MASK]", nothing): b is minus the logarithm of the mean of these three distributions (Zhao et al.,
    "Calibrate Before Use", arXiv 2102.09690, section 5).

    Raises:
        UserError: ``ridge`` is not positive.
    """

    classes_only: ClassVar[bool] = True

    def __init__(
        self,
        *,
        by: Annotated[str, "fitted on the training set, or from an input without content", WAYS] = "threshold",
        ridge: Annotated[float, "weight of the offsets' squares, by threshold"] = 0.01,
    ) -> None:
        if not ridge > 0 or not np.isfinite(ridge):
            raise UserError(f"ridge: {ridge} cannot work; give a number above 0")
        self.by, self.ridge = by, ridge

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        self.few_shot = few_shot
        if self.by == "contextual":
            fields = {name for name in names(few_shot.encoder.prompt.template) if name != "mask"}
            blank = [Example(dict.fromkeys(fields, text), 0) for text in CONTENT_FREE]
            asked = few_shot.ask(few_shot.encoder, blank, few_shot.train, "scoring inputs without content")
            self.offsets = -torch.from_numpy(np.log(softmax(_scores(asked), axis=1).mean(0)))
        else:
            labels = few_shot.encoder.labels(few_shot.train).numpy()
            self.offsets = torch.from_numpy(offsets(_scores(few_shot.zero_shot(few_shot.train)), labels, self.ridge))
        return {"offsets": (self.offsets - self.offsets.mean()).tolist()}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        plain = self.few_shot.zero_shot(examples)
        shifted = [score + self.offsets.float() for score in plain.scores]
        lost = [guess is None for guess in plain.predicted]
        return Predictions(
            [None if bad else int(score.argmax()) for bad, score in zip(lost, shifted, strict=True)], shifted
        )


def offsets(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], ridge: float) -> np.ndarray[Any, Any]:
    """The b that minimises the mean cross-entropy of scores + b, plus ridge / 2 |b|^2, a convex function.

    Args:
        scores: (N, C) float64.
        labels: (N,) right classes.
        ridge: above 0.

    Returns:
        (C,) float64, which sum to 0.
    """
    right = np.eye(scores.shape[1])[labels]

    def loss(b: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        value = -(right * log_softmax(scores + b, axis=1)).sum(1).mean() + ridge / 2 * b @ b
        return float(value), (softmax(scores + b, axis=1) - right).mean(0) + ridge * b

    return np.asarray(minimize(loss, np.zeros(scores.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9}).x)


def _scores(predictions: Predictions) -> np.ndarray[Any, Any]:
    """(N, C) float64.

    Raises:
        UserError: some are not numbers.
    """
    scores: Tensor = torch.stack(predictions.scores)
    if not bool(scores.isfinite().all()):
        raise UserError("dtype: class scores of this model are not numbers; try float32")
    return scores.double().numpy()
