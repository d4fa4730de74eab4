"""The model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.scoring import Predictions
from dfolora.task import Example


class ZeroShot(Baseline):
    """Asks the model with the task's prompt, and learns nothing."""

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        self.few_shot = few_shot
        return {}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        return self.few_shot.zero_shot(examples)
