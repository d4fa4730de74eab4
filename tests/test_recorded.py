"""The demo gives the numbers of the version before the house was rebuilt: recorded in ``recorded/demo.json`` from it.

Where the libraries and the processor's instructions are those of the recording, to the last bit; elsewhere sums are
taken in another order, and what is left is who is asked for what at which cost, and the first losses but for rounding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import StopAt, log

import dfolora

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "demo.json").read_text(encoding="utf-8"))
EXACT = ("generation", "layer", "evaluations", "token_layers", "forwards", "backwards")  # on every machine
SAME_MACHINE = (
    torch.backends.cpu.get_cpu_capability() == RECORDED["cpu_capability"]
    and {name: version(name) for name in RECORDED["versions"]} == RECORDED["versions"]
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", RECORDED["runs"])
def test_the_log_is_the_recorded_one(tmp_path: Path, name: str) -> None:
    options, recorded = RECORDED["runs"][name]["options"], RECORDED["runs"][name]["lines"]
    assert len(recorded) == 8
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**RECORDED["settings"], **options, output=str(tmp_path / "run"), listener=StopAt(7))
    lines = [{key: line[key] for key in recorded[0]} for line in log(tmp_path / "run")]
    if SAME_MACHINE:
        assert lines == recorded
    else:
        assert [[line[key] for key in EXACT] for line in lines] == [[line[key] for key in EXACT] for line in recorded]
        assert [len(line["losses"]) for line in lines] == [len(line["losses"]) for line in recorded]
        assert [line["dev"] is None for line in lines] == [line["dev"] is None for line in recorded]
        assert lines[1]["losses"] == pytest.approx(recorded[1]["losses"], abs=1e-4)
