"""The commonest class, whatever the text says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.scoring import Predictions
from dfolora.task import Example


class Majority(Baseline):
    """Predicts the commonest class of the training set, the lowest of several; scores are shares."""

    reads_weights: ClassVar[bool] = False
    classes_only: ClassVar[bool] = True

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        words = few_shot.encoder.prompt.words
        assert words is not None, "checked before"
        counts = Counter(example.label for example in few_shot.train)
        self.shares = torch.tensor([counts[label] / len(few_shot.train) for label in range(len(words))])
        return {"class": int(self.shares.argmax()), "share": float(self.shares.max())}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        return Predictions([int(self.shares.argmax())] * len(examples), [self.shares] * len(examples))
