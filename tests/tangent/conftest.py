"""What the tests of the method tangent get: runs on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Command, Tune

from dfolora.methods.tangent import linear_model


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    monkeypatch.setattr(linear_model, "_HALVINGS", 4)  # a rough promise is enough here, and quick
    base = ["--method", "tangent", "--budget", "200", "--rounds", "2", "--directions", "2"]
    return Tune(Command(capsys), tmp_path, base)
