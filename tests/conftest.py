"""What every test gets: one thread, registries that forget, and the command inside the process where it asks for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SMALL, Command, csv_files, given, model

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    from dfolora import baselines, optimizers, reasoning, subspaces, tasks, texts
    from dfolora.problems import objectives, reward_source
    from dfolora.runs import trackers
    from dfolora.settings import methods
    from dfolora.tasks import reasoning as question_sets

    modules = (optimizers, subspaces, tasks, objectives, reward_source, methods, baselines, trackers)
    modules += (reasoning, question_sets, texts)
    for registry in (module.REGISTRY for module in modules):
        monkeypatch.setattr(registry, "_added", dict(registry._added))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A small run into ``run``, as keyword arguments."""
    return given(["--model", model("masked"), *csv_files(tmp_path), *SMALL, "--output", tmp_path / "run"])
