"""A run whose optimizers work ahead is the run in which they do not, whatever the loop asks of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Command, Tune

from dfolora.methods.search import Search
from dfolora.optimizers import Optimizer
from dfolora.optimizers.cma import CMA

COST = ("seconds",)
CASES = {
    "cma": [],
    "visits": ["--visit", 2],
    "joint": ["--mode", "joint"],
    "minibatch": ["--batch", 3],
    "steps of two generations": ["--optimizer", "guided", "--visit", 2, "--batch", 3],
    "a step across sweeps": ["--optimizer", "greedy", "--batch", 3],
    "steps that use scores": ["--optimizer", "gauss-newton"],
    "bounded": ["--bound", 0.5, "--incumbent", "best"],
    "not in a thread": ["--optimizer", "nevergrad:DiagonalCMA"],
}


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path)


def lines_of(tune: Tune, *changes: object) -> list[dict[str, Any]]:
    _, lines = tune("--budget", 40, *changes)
    return [{name: value for name, value in line.items() if name not in COST} for line in lines]


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_same_run(tune: Tune, monkeypatch: pytest.MonkeyPatch, changes: list[object]) -> None:
    ahead = lines_of(tune, *changes)
    monkeypatch.setattr(Optimizer, "ask_ahead", lambda self, workers: None)
    assert ahead == lines_of(tune, *changes)


def test_the_loop_lets_threads_ask(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where scoring takes long enough, the loop's own thread asks for the first generation of each layer only."""
    plain, step, asked = CMA._ask, Search.step, list[str]()

    def noted(self: CMA) -> Any:
        asked.append(threading.current_thread().name)
        return plain(self)

    def slow(self: Search, *arguments: Any) -> Any:
        for optimizer in self.optimizers:
            if optimizer._ahead is not None:
                optimizer._ahead.exception()  # waits for it
        return step(self, *arguments)

    monkeypatch.setattr(CMA, "_ask", noted)
    monkeypatch.setattr(Search, "step", slow)
    _, lines = tune("--budget", 40)
    assert len(lines) == 1 + 10
    assert asked.count(threading.current_thread().name) == 2
    assert len(asked) >= 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ask-ahead")]


def test_a_failure_ahead_ends_the_run(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CMA._ask

    def fails(self: CMA) -> Any:
        if self._told:
            raise ArithmeticError("not positive definite")
        return plain(self)

    monkeypatch.setattr(CMA, "_ask", fails)
    with pytest.raises(ArithmeticError, match="positive definite"):
        tune("--budget", 40)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ask-ahead")]
