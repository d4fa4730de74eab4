"""What a run is going to cost, before it has: near enough, and without a trace in its log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FIRST_ORDER, SMALL, TEMPLATE, Command, Tune, csv_files, given, log, model

import dfolora
from dfolora import Listener
from dfolora.engine import Engine
from dfolora.problems.adapters import AdapterProblem
from dfolora.runs import forecast
from dfolora.runs.forecast import Forecast, clock


class Heard(Listener):
    """Writes down forecasts and after how many steps they came."""

    def __init__(self) -> None:
        self.steps = 0
        self.forecasts: list[tuple[int, Forecast]] = []

    def forecast(self, forecast: Forecast) -> None:
        self.forecasts.append((self.steps, forecast))

    def progress(self, line: Any, best: Any) -> None:
        self.steps += line.generation > 0


def tuned(tune: Tune, output: str, *changes: object) -> tuple[Heard, dfolora.Run]:
    heard = Heard()
    run = dfolora.tune(**given(tune.flags(*changes)), output=tune.folder / output, listener=heard)
    return heard, run


@pytest.mark.parametrize("mode", ["layerwise", "joint"])
def test_a_search_is_forecast_before_its_first_step(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The log is to the last bit that of a run without a forecast, counts included."""
    tune = Tune(command, tmp_path, [*SMALL, "--mode", mode, "--batch", "4"])
    silent, plain = tuned(tune, "plain")
    assert silent.forecasts == []  # it is over in a moment
    monkeypatch.setattr(forecast, "SHORT", 0.0)
    heard, run = tuned(tune, "told")
    ((steps, found),) = heard.forecasts
    assert (steps, found.evaluations) == (0, 24)
    assert found.rate == pytest.approx(24 / found.search_seconds)
    assert found.seconds == pytest.approx(found.search_seconds + found.look_seconds + found.test_seconds)
    assert found.look_seconds > 0
    assert found.test_seconds > 0
    assert found.peak_bytes is not None
    assert 1e8 < found.peak_bytes < 1e11
    assert log(run.folder) == log(plain.folder)


def test_the_forecast_is_near(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only forwards move: an upper layer costs less, looks and tests cost by the example."""
    now = [0.0]
    evaluate, look = AdapterProblem.evaluation, Engine.incumbent_scores

    def slow(problem: Any, z: torch.Tensor, part: int = 0, *more: Any) -> Any:
        now[0] += 0.5 + len(z) * (2 if part == 0 else 1)
        return evaluate(problem, z, part, *more)

    def slow_look(engine: Engine, *more: Any) -> Any:
        now[0] += len(engine.rows.classes)
        return look(engine, *more)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(AdapterProblem, "evaluation", slow)
    monkeypatch.setattr(Engine, "incumbent_scores", slow_look)
    heard, run = tuned(Tune(command, tmp_path), "run", "--dev-every", "8")
    ((steps, found),) = heard.forecasts
    assert steps == 0
    assert run.scores["seconds"] == 6 * 0.5 + 12 * 2 + 12 * 1
    assert found.search_seconds == pytest.approx(run.scores["seconds"], rel=0.3)
    assert found.search_seconds != run.scores["seconds"]  # it has tried fewer candidates at once
    assert (found.look_seconds, found.test_seconds) == (3 * 6, 2 * 12)


def test_other_methods_tell_after_a_step(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "SHORT", 0.0)
    heard, run = tuned(Tune(command, tmp_path, [*FIRST_ORDER, "--budget", "8"]), "run")
    ((steps, found),) = heard.forecasts
    assert (steps, found.evaluations) == (1, 7)
    seconds = run.logged()[1].seconds
    assert found.rate == pytest.approx(1 / seconds)


def test_a_forecast_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = Forecast(12.5, 3000, 240.0, 31.0, 0.2, 3 * 2**30, None)
    assert str(found) == ("3000 evaluations, 12.5 a second: 4:00, the dev set: 0:31; 4:31 in all, 3.00 GiB of memory")
    assert [clock(7.4), clock(3723)] == ["0:07", "1:02:03"]


def test_info_without_a_search(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = csv_files(tmp_path)
    before = set(tmp_path.iterdir())
    facts = command.json("info", model("causal"), *files, *SMALL, "--target", "qk,o", "--max-length", 8)
    assert set(tmp_path.iterdir()) == before
    assert {name: facts["model"][name] for name in ("kind", "architecture", "layers", "longest_prompt")} == {
        "kind": "causal", "architecture": "LlamaForCausalLM", "layers": 2, "longest_prompt": 8,
    }  # fmt: skip
    loaded = dfolora.load_model(model("causal")).model
    assert facts["model"]["parameters"] == sum(weight.numel() for weight in loaded.parameters())
    assert facts["task"]["splits"]["train"] == {"examples": 6, "tokens": [6, 6.3, 7], "cut": 0}
    assert facts["task"]["splits"]["test"]["examples"] == 12
    assert facts["task"]["template"] == TEMPLATE
    run = facts["run"]
    assert (run["method"], run["search"], run["evaluations_a_step"]) == ("search", "cma", 4)
    assert run["numbers_searched"] == [20, 20]
    assert run["adapted_modules"] == ["k_proj", "o_proj", "q_proj"]
    assert facts["forecast"]["rate"] > 0
    assert facts["forecast"]["evaluations"] == 24

    cut = command.json("info", model("causal"), *files, "--max-length", 5)
    assert cut["task"]["splits"]["train"]["cut"] == 6
    assert (cut["run"]["method"], cut["run"]["numbers_searched"]) == ("tangent", [])
    assert cut["forecast"]["rate"] > 0
    assert command("info") == 0  # the demo
    assert "forecast" in command.out
    assert command("info", model("causal"), *files, "--lr", "1") == 2
    assert "--lr" in command.err
