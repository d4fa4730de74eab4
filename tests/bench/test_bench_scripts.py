"""The benchmark scripts run and say what they promise, on sizes too small to take time; no speed is asserted."""

from __future__ import annotations

import json
import sys

import pytest

from dfolora.bench import cases
from scripts import bench_probes, full_parameter_memory


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "SHAPES", {"llama12": lambda: cases._llama(2, 32, 4, 64, 20000)})


def test_probes_in_place_and_batched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--examples", "2", "--tokens", "6", "--probes", "2", "--repetitions", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["bench_probes", *flags])
    bench_probes.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert set(rows) == {"in place, LoRA", "in place, all weights", "batched, all layers", "batched, layer-wise"}
    assert all(row["seconds"] > 0 for row in rows.values())
    assert rows["in place, LoRA"]["times_in_place"] == 1


def test_memory_of_a_full_parameter_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """More than inference and less than a copy of the weights more."""
    monkeypatch.setattr(sys, "argv", ["full_parameter_memory", "--examples", "4", "--tokens", "8", "--json"])
    full_parameter_memory.main()
    held = json.loads(capsys.readouterr().out)["bytes"]
    assert held["inference"] > held["weights"] > 4 * 2 * 20000 * 32
    for name in ("spsa", "guided", "greedy"):
        assert held["inference"] < held[name] < held["inference"] + held["weights"]
