"""A model without an adapter: what is tuned are its own weights."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from dfolora.models.adapter import Factors, Layer
from dfolora.models.load import LanguageModel, quiet
from dfolora.models.targets import block_names
from dfolora.models.tuned import TunedModel


class Bare(TunedModel):
    """A model tuned in all its weights: the engine scores it as it stands, and ``save`` writes it whole.

    Attributes:
        language_model: the model.
        layers: its blocks, for the engine to count and cut; without modules.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        """Find the blocks; the model is not changed."""
        self.language_model = language_model
        self.layers = [Layer(name, {}) for name in block_names(language_model.model)]
        self.versions = [0] * len(self.layers)
        self.active = [False] * len(self.layers)
        self.learned: dict[Hashable, Any] = {}

    @property
    def model(self) -> Any:
        return self.language_model.model

    def state(self) -> list[Factors]:
        """Nothing: all weights are too much to keep; the log of a run says how to come to them again."""
        return []

    def restore(self, state: Sequence[Factors]) -> None:
        """Nothing, as there is no state."""

    def clear(self) -> None:
        """Nothing: as it stands it is what is scored."""

    def _write_folder(self, folder: Path) -> None:
        """The model, and how a sentence encoder's tokens are pooled where that is not the mean."""
        with quiet():
            self.language_model.model.save_pretrained(str(folder))
        if self.language_model.kind == "encoder" and self.language_model.pooling == "cls":
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}), "utf-8")
