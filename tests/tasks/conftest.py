"""What the tests of the datasets share: files in a scratch folder, a Hub without a network, the real data."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def shared() -> Path:
    """The folder with the real few-shot data, which is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the real few-shot data are not at {SHARED}")
    return SHARED


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write text, or records as jsonl, to a file below the scratch folder; returns the file."""

    def write(name: str, *parts: str | dict) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [part if isinstance(part, str) else json.dumps(part) + "\n" for part in parts]
        file.write_bytes("".join(lines).encode())
        return file

    return write


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A Hub that serves what a test puts in under (repository, configuration, split); what is not there fails."""
    served: dict = {}

    def load_dataset(repository: str, config: str | None = None, *, split: str) -> list[dict]:
        if (repository, config, split) not in served:
            raise ConnectionError(f"Couldn't reach {repository}\nand a second line")
        return served[repository, config, split]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return served
