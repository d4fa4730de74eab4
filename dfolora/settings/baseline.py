"""Settings of ``baseline``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dfolora.errors import UserError
from dfolora.settings.model import ModelSettings
from dfolora.settings.options import as_text, option


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(ModelSettings):
    """Options of ``baseline``: the few-shot split, the test set and the seed are those of a run."""

    baseline: Any = option("", "name, class or instance: see `dfolora baselines`", group="")
    baseline_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "what the baseline takes itself"})
    test_split: str = option(
        "test", "scored at the end: test, dev or none", group="Run", choices=("test", "dev", "none")
    )
    output: str = option("", "its folder; nothing: a new one under runs/", group="Run")

    @property
    def search(self) -> str:
        """The baseline's name, for folders and scores."""
        return str(as_text(self.baseline))

    def check(self) -> None:
        super().check()
        if (self.dev_file or self.test_file) and not self.train_file:
            raise UserError(f"train_file: there is none to go with {self.dev_file or self.test_file!r}")
