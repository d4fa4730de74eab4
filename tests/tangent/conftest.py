"""What the tests of the method tangent get: runs on tiny models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Command, StopAt, Tune, csv_files, given, log, model

import dfolora
from dfolora.methods.tangent import linear_model

BASE = ["--method", "tangent", "--budget", "200", "--rounds", "2", "--directions", "2"]


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    monkeypatch.setattr(linear_model, "_HALVINGS", 4)  # a rough promise is enough here, and quick
    return Tune(Command(capsys), tmp_path, BASE)


class Runs:
    """Runs that several tests look at or go on from; each is run once, and every test gets a copy of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, csv_files(folder)
        self.scores: dict[str, dict[str, Any]] = {}

    def whole(self, kind: str = "causal") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Scores and log of a run that ended; nobody changes its folder."""
        if kind not in self.scores:
            run = dfolora.tune(**self._options(kind), output=str(self.folder / kind))
            self.scores[kind] = run.scores
        return self.scores[kind], log(self.folder / kind)

    def interrupted(self, into: Path, stop: int, kind: str = "causal", **changes: Any) -> Path:
        """The folder of a run that Ctrl-C ended after a line of its log, copied."""
        run = self.folder / f"{kind} until {stop} {changes}"
        if not run.exists():
            with pytest.raises(KeyboardInterrupt):
                dfolora.tune(**{**self._options(kind), **changes}, output=str(run), listener=StopAt(stop))
        assert len(log(run)) == stop + 1
        copied = into / f"{run.name} {len(list(into.iterdir()))}"
        shutil.copytree(run, copied)
        return copied

    def _options(self, kind: str) -> dict[str, Any]:
        return given(["--model", model(kind), *self.files, *BASE])


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("tangent"))


@pytest.fixture
def runs(made_runs: Runs, tune: Tune) -> Runs:  # ``tune``, for the rough promise of its runs
    return made_runs
