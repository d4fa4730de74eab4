"""A linear classifier on the hidden states of the model as it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Linear
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dfolora.baselines.base import Baseline, need_two_classes
from dfolora.baselines.few_shot import FewShot
from dfolora.errors import UserError
from dfolora.problems.encode import PromptEncoder
from dfolora.scoring import Predictions
from dfolora.task import Example

PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # scikit-learn's C: how little large weights are penalised


class LogisticRegression(Baseline):
    """Logistic regression on frozen hidden states, each standardised by the training set.

    They are those at the answer position after every block, or a sentence encoder's pooled vector. Block and penalty
    are chosen on the dev set, by accuracy, then by cross-entropy, then the earlier block and the smaller C.
    """

    classes_only: ClassVar[bool] = True

    def check(self, encoder: PromptEncoder, train: Sequence[Example]) -> None:
        super().check(encoder, train)
        need_two_classes("logistic-regression", encoder.task.name, train)

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        self.few_shot = few_shot
        assert few_shot.encoder.prompt.words is not None, "checked before"
        self.classes = len(few_shot.encoder.prompt.words)
        train, self.dev = few_shot.hidden_states(few_shot.train), few_shot.hidden_states(few_shot.dev)
        labels, dev_labels = few_shot.encoder.labels(few_shot.train), few_shot.encoder.labels(few_shot.dev)
        few_shot.stage(f"fitting {len(train) * len(PENALTIES)} linear classifiers")
        best: tuple[float, float] | None = None
        for layer, (states, dev_states) in enumerate(zip(train, self.dev, strict=True)):
            for penalty in PENALTIES:
                model = fitted(states, labels, penalty)
                scores = log_probabilities(model, dev_states, self.classes)
                right = float((scores.argmax(1) == dev_labels).double().mean())
                loss = -float(scores.gather(1, dev_labels[:, None]).clamp(min=-100).mean())
                if best is None or (right, -loss) > best:
                    best = right, -loss
                    self.model, self.layer, chosen = model, layer, penalty
        return {"c": chosen} if few_shot.encoder.kind == "encoder" else {"layer": self.layer, "c": chosen}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        few_shot = self.few_shot
        states = self.dev if examples is few_shot.dev else few_shot.hidden_states(examples)
        scores = log_probabilities(self.model, states[self.layer], self.classes)
        return Predictions(scores.argmax(1).tolist(), list(scores.float()))


def fitted(states: Tensor, labels: Tensor, penalty: float) -> Pipeline:
    """Fit a classifier.

    Args:
        states: (N, H) float32.
        labels: (N,) classes, at least two.
        penalty: scikit-learn's C.

    Raises:
        UserError: some states are not numbers.
    """
    model = make_pipeline(StandardScaler(), Linear(C=penalty, max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after a thousand steps it is near enough
        return model.fit(_matrix(states), labels.numpy())


def log_probabilities(model: Pipeline, states: Tensor, classes: int) -> Tensor:
    """(N, C) float64 log-probabilities; -inf for a class that the training set did not have."""
    scores = torch.full((len(states), classes), -float("inf"), dtype=torch.float64)
    scores[:, torch.from_numpy(model.classes_)] = torch.from_numpy(model.predict_log_proba(_matrix(states)))
    return scores


def _matrix(states: Tensor) -> np.ndarray[Any, Any]:
    if not bool(states.isfinite().all()):
        raise UserError("dtype: hidden states of this model are not numbers; try float32")
    return states.double().numpy()
