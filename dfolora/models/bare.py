"""A model without an adapter where one is expected: what is tuned are its own weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dfolora.models.adapter import Adapter, Layer
from dfolora.models.load import LanguageModel, quiet
from dfolora.models.targets import block_names


class Bare(Adapter):
    """An adapter of no modules: the engine scores the model as it stands, and ``save`` writes the model.

    Attributes:
        language_model: the model.
        layers: the model's blocks, for the engine to count and cut; without modules.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        """Find the blocks; the model is not changed."""
        self.language_model = language_model
        self.layers = [Layer(name, {}) for name in block_names(language_model.model)]
        self.versions = [0] * len(self.layers)
        self.active = [False] * len(self.layers)

    @property
    def model(self) -> Any:
        return self.language_model.model

    def moved(self, layer: int) -> None:
        self.versions[layer] += 1

    def _write_folder(self, folder: Path) -> None:
        """The model, its tokenizer, and how a sentence encoder's tokens are pooled where that is not the mean."""
        with quiet():
            self.language_model.model.save_pretrained(str(folder))
        self.language_model.tokenizer.save_pretrained(str(folder))
        if self.language_model.kind == "encoder" and self.language_model.pooling == "cls":
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}), "utf-8")
