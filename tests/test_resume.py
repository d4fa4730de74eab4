"""A run that was interrupted goes on as if it had not been: replay needs the log and no forward pass."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FIRST_ORDER, SMALL, Command, StopAt, csv_files, given, log, model

import dfolora
from dfolora.engine import Engine
from dfolora.log import Line
from dfolora.optimizers import optimizer_names
from dfolora.problems.selection import Selection
from dfolora.runs.folder import Run
from dfolora.settings.build import tune_settings

NAMES = [*optimizer_names(), "nevergrad:PSO", "nevergrad:DE"]
LONGER = ["--budget", "40"]  # five generations of each layer
# What depends on how warm the caches of hidden states are: a resumed run has to fill them again, and counts that.
COST = ("token_layers", "forwards")


def finished(command: Command, folder: Path, *changes: object, kind: str = "masked") -> dict[str, Any]:
    files = csv_files(folder)
    output = folder / "whole"
    return command.json("tune", "--model", model(kind), *files, *SMALL, *LONGER, *changes, "--output", output)


def cut(scores: dict[str, Any], generations: float) -> Path:
    """A copy of a run as if it had been killed: so many generations are in the log, the last perhaps in part."""
    run = Path(scores["run"]).with_name("cut")
    shutil.copytree(scores["run"], run)
    (run / "scores.json").unlink()
    (run / "predictions.jsonl").unlink()
    shutil.rmtree(run / "adapter")
    lines = (run / "log.jsonl").read_bytes().splitlines(keepends=True)
    whole = int(generations)
    rest = lines[whole + 1][: int(len(lines[whole + 1]) * (generations - whole))]
    (run / "log.jsonl").write_bytes(b"".join(lines[: whole + 1]) + rest)
    return run


def plain(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in COST} for line in lines]


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same search, adapter and scores, all but what a clock or a warm cache decides."""
    logs = [log(scores["run"]) for scores in (first, second)]
    assert plain(logs[0]) == plain(logs[1])
    for one, other in zip(*logs, strict=True):
        for name in COST:
            assert 0 <= other[name] - one[name] <= one[name] / 2
    weights = [(Path(scores["adapter"]) / "adapter_model.safetensors").read_bytes() for scores in (first, second)]
    assert weights[0] == weights[1]
    mere = {*COST, "seconds", "run", "adapter"}
    assert {name: first[name] for name in first if name not in mere} == {
        name: second[name] for name in second if name not in mere
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_on(command: Command, tmp_path: Path, name: str) -> None:
    scores = finished(command, tmp_path, "--optimizer", name)
    lines = log(scores["run"])
    sizes = [len(line["losses"]) for line in lines[1:]]
    if name in ("greedy", "guided"):  # two layers take turns; a step has a generation of 4 and one of 2 candidates
        assert sizes[:8] == [4, 4, 2, 2, 4, 4, 4, 4]  # after the first one comes the ladder of rates: x and 3 lengths
        assert 38 <= sum(sizes) <= 40
    else:
        assert sizes == [4] * 10
    run = cut(scores, 5.4)
    again = command.json("tune", "--resume", run)
    assert again["run"] == str(run)
    assert f"resuming {run} after {lines[5]['evaluations']} evaluations" in command.err
    assert_same(scores, again)


@pytest.mark.parametrize("generations", [-0.6, 0, 1, 2.99, 9.5, 10])
def test_from_anywhere(command: Command, tmp_path: Path, generations: float) -> None:
    """Cut in the first line of the log, before the first generation, ..., after the last."""
    scores = finished(command, tmp_path, "--dev-every", 8, "--visit", 2)
    if generations == 10:
        run = cut(scores, 9)
        shutil.copy(Path(scores["run"]) / "log.jsonl", run)
    elif generations < 0:
        run = cut(scores, 0)
        (run / "log.jsonl").write_bytes((run / "log.jsonl").read_bytes()[:20])
    else:
        run = cut(scores, generations)
    assert_same(scores, command.json("tune", "--resume", run))


@pytest.mark.parametrize("kind", ["masked", "causal", "encoder"])
@pytest.mark.parametrize(
    "changes",
    [
        ["--mode", "joint"],
        ["--preset", "dfo-lora", "--dev-every", "8"],
        ["--preset", "mezo-gv-lora", "--dev-every", "6", "--lr", "1"],
        ["--subspace", "xs"],
        ["--subspace", "full"],
        ["--batch", "3", "--optimizer", "guided", "--visit", "2"],
    ],
    ids=lambda changes: "".join(changes),
)
def test_with_any_setting(command: Command, tmp_path: Path, kind: str, changes: list[str]) -> None:
    scores = finished(command, tmp_path, *changes, kind=kind)
    assert_same(scores, command.json("tune", "--resume", cut(scores, 4.5)))


@pytest.mark.parametrize("stop", [0, 3, 10])
def test_interrupted_in_the_library(command: Command, tmp_path: Path, stop: int) -> None:
    scores = finished(command, tmp_path)
    options = given(["--model", model("masked"), *csv_files(tmp_path), *SMALL, *LONGER, "--output", tmp_path / "cut"])
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**options, listener=StopAt(stop))
    lines = log(tmp_path / "cut")
    assert lines == log(scores["run"])[: stop + 1]
    assert not (tmp_path / "cut" / "scores.json").exists()
    run = Run.open(tmp_path / "cut")
    assert run.settings == tune_settings(**options)
    run.close()
    assert_same(scores, dfolora.tune(resume=tmp_path / "cut").scores)


def test_ctrl_c(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = Engine.scores, iter(range(100))

    def interrupted(self: Engine, *arguments: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, *arguments)

    files = csv_files(tmp_path)
    arguments = ["tune", "--model", model("masked"), *files, *SMALL, *LONGER, "--output", tmp_path / "cut"]
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "verify", lambda self, edits: None)
        patch.setattr(Engine, "scores", interrupted)
        assert command(*arguments) == 130
    assert "interrupted" in command.err
    assert "Traceback" not in command.err
    assert len(log(tmp_path / "cut")) == 4
    assert_same(finished(command, tmp_path), command.json("tune", "--resume", tmp_path / "cut"))


def test_replay_runs_nothing_that_is_logged(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = finished(command, tmp_path)
    run = cut(scores, 7)
    calls: list[set[str]] = []
    measure = Engine.scores

    def counted(self: Engine, edits: Any, examples: Any = None) -> Any:
        calls.append({name.split(".")[3] for name in edits})
        return measure(self, edits, examples)

    looks: list[int] = []
    look = Selection.measure

    def looked(self: Selection, line: Line) -> None:
        looks.append(line.generation)
        look(self, line)

    monkeypatch.setattr(Engine, "verify", lambda self, edits: None)
    monkeypatch.setattr(Engine, "scores", counted)
    monkeypatch.setattr(Selection, "measure", looked)
    command.json("tune", "--resume", run)
    assert calls == [{str(line["layer"])} for line in log(scores["run"])[8:]]
    assert looks == [8, 10]


EXTENDED = {
    "cma": [*SMALL, "--budget", 24],
    "joint": [*SMALL, "--budget", 24, "--mode", "joint", "--optimizer", "guided", "--lr", 0.05, "--dev-every", 12],
    "first-order": [*FIRST_ORDER, "--budget", 24],
    "first-order between looks": [*FIRST_ORDER, "--budget", 24, "--dev-every", 7],
    "hybrid": [*FIRST_ORDER, "--method", "hybrid", "--rho", 0.6, "--budget", 24],
    "full-parameter": ["--method", "full-parameter", "--budget", 24, "--lr", 3e-3, "--sigma", 1e-2, "--dev-every", 6],
}


@pytest.mark.parametrize("name", EXTENDED)
def test_a_finished_run_goes_on_beyond_its_budget(command: Command, tmp_path: Path, name: str) -> None:
    """As the run that was planned so long from the start; also where it is interrupted once more."""
    base = ["tune", "--model", model("masked"), *csv_files(tmp_path), *EXTENDED[name]]
    longer = command.json(*base, "--budget", 40, "--output", tmp_path / "longer")
    short = command.json(*base, "--output", tmp_path / "run")
    assert short["evaluations"] == (22 if name == "joint" else 24)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    more = command.json("tune", "--resume", tmp_path / "run", "--budget", 40)
    assert more["evaluations"] == longer["evaluations"] > 36
    assert_same_numbers(longer, more)

    stop = len(log(tmp_path / "longer")) - 3
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(resume=tmp_path / "again", budget=40, listener=StopAt(stop))
    assert not (tmp_path / "again" / "scores.json").exists()
    assert_same_numbers(longer, command.json("tune", "--resume", tmp_path / "again"))


def assert_same_numbers(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same log, weights and scores; more tokens at most."""
    logs = [log(scores["run"]) for scores in (first, second)]
    assert plain(logs[0]) == plain(logs[1])
    files = [next(Path(scores["run"]).glob("*/*model.safetensors")) for scores in (first, second)]
    assert files[0].read_bytes() == files[1].read_bytes()
    names = ("tuned", "zero_shot", "dev_tuned", "dev_zero_shot", "dev_loss", "selected_at", "evaluations")
    assert [first[name] for name in names] == [second[name] for name in names]


def started(tmp_path: Path, flags: list[str], lines: int) -> subprocess.Popen[bytes]:
    """A process that tunes into ``cut``, once so many lines are in its log."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dfolora", *flags, "--output", str(tmp_path / "cut")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        # where the tests run in the background, Ctrl-C would be ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    file = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_bytes().count(b"\n") > lines) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_was_stopped_goes_on(command: Command, tmp_path: Path, sent: signal.Signals) -> None:
    changes = ["--budget", "600", "--population", "20", "--seed", "5"]
    flags = ["tune", "--model", model("causal"), *csv_files(tmp_path), *SMALL, *changes, "--json"]
    process = started(tmp_path, flags, 5)
    process.send_signal(sent)
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
    assert process.wait() == expected, "it was over before it could be stopped"
    lines = log(tmp_path / "cut")
    assert 5 < len(lines) < 31
    assert not (tmp_path / "cut" / "scores.json").exists()
    assert (tmp_path / "cut" / "adapter" / "adapter_model.safetensors").exists() == (sent != signal.SIGKILL)
    if sent != signal.SIGKILL:  # the best so far is there and can be used
        best = max((x for x in lines if x["dev"]), key=lambda x: (x["dev"]["main"], -x["dev"]["loss"]))
        found = command.json("evaluate", tmp_path / "cut", "--split", "dev")
        assert found["metrics"] == best["dev"]["metrics"]
    again = command.json("tune", "--resume", tmp_path / "cut")
    whole = command.json(*flags[:-1], "--output", tmp_path / "whole")
    assert_same(whole, again)
