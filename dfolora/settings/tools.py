"""Settings of ``merge``, ``export``, ``push`` and ``info``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfolora.settings.model import DATA, MODEL, ModelSettings
from dfolora.settings.options import Options, option


@dataclass(frozen=True, kw_only=True)
class MergeSettings(Options):
    """Options of ``merge``."""

    model: str = option("", "the base model, hub id or folder; nothing: the one that the adapter names", group=MODEL)
    dtype: str = option(
        "auto",
        "number format of the merged weights; auto: float32, or the run's where it named one",
        group=MODEL,
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    trust_remote_code: bool = option(False, "let the model repository's own Python code run", group=MODEL)


@dataclass(frozen=True, kw_only=True)
class PushSettings(Options):
    """Options of ``push``."""

    private: bool = option(False, "make a repository that only its owner sees", group="Run")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ModelSettings):
    """Options of ``export``."""

    lm_eval: str = option("", "folder for task files of lm-evaluation-harness", group="Run")
    tasks: Any = option("", "names separated by commas, or all; nothing: the run's own task", group=DATA)
    adapter: str = option("", "folder of a saved adapter or of a run, whose model and prompt are taken", group=MODEL)
    split: str = option("test", "train, dev (dev32) or test (val)", group=DATA)
