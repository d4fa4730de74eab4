"""A run that was interrupted goes on as if it had not been: replay needs the log and no forward pass."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_models import SMALL, Command, csv_files, log, model

from dfolora import api as jobs
from dfolora import cli
from dfolora.engine import Engine
from dfolora.optimizers import optimizer_names
from dfolora.problems.selection import Selection
from dfolora.runs.folder import Generation, Run
from dfolora.settings.config import TuneConfig
from dfolora.settings.options import build

NAMES = [*optimizer_names(), "nevergrad:PSO", "nevergrad:DE"]
LONGER = ["--budget", "40"]  # five generations of each layer
# What depends on how warm the caches of hidden states are: a resumed run has to fill them again, and counts that.
COST = ("token_layers", "forwards")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def finished(command: Command, folder: Path, *changes: object, kind: str = "masked") -> dict[str, Any]:
    files = csv_files(folder)
    output = folder / "whole"
    return command.json("tune", "--model", model(kind), *files, *SMALL, *LONGER, *changes, "--output", output)


def cut(scores: dict[str, Any], generations: float) -> Path:
    """A copy of a run as if it had been killed: so many generations are in the log, the last perhaps in part."""
    run = Path(scores["run"]).with_name("cut")
    shutil.copytree(scores["run"], run)
    (run / "scores.json").unlink()
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
    # two layers take turns; a step of these has a generation of 4 and one of 2 candidates
    assert sizes == ([4, 4, 2, 2] * 3 + [4] if name in ("greedy", "guided") else [4] * 10)
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
    flags = [*csv_files(tmp_path), *SMALL, *LONGER]
    given = {name.removeprefix("--"): value for name, value in zip(flags[::2], flags[1::2], strict=True)}
    config = build(TuneConfig, {**given, "model": model("masked"), "output": str(tmp_path / "cut")})
    task, examples = cli._task(config)

    def progress(state: Generation, best: Generation) -> None:
        if state.generation == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.tune(config, task, examples, progress=progress)
    lines = log(tmp_path / "cut")
    assert lines == log(scores["run"])[: stop + 1]
    assert not (tmp_path / "cut" / "scores.json").exists()
    run = Run.open(str(tmp_path / "cut"))
    assert run.config == config
    assert_same(scores, jobs.tune(run.config, task, examples, run))


def test_ctrl_c(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = Engine.scores, iter(range(100))

    def interrupted(self: Engine, *arguments: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, *arguments)

    files = csv_files(tmp_path)
    arguments = ["tune", "--model", model("masked"), *files, *SMALL, *LONGER, "--output", tmp_path / "cut"]
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "scores", interrupted)
        assert command(*arguments) == 130
    assert "interrupted" in command.err
    assert "Traceback" not in command.err
    assert len(log(tmp_path / "cut")) == 4
    assert_same(finished(command, tmp_path), command.json("tune", "--resume", tmp_path / "cut"))


def test_replay_runs_nothing_that_is_logged(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = finished(command, tmp_path)
    run = cut(scores, 7)
    calls: list[int] = []
    measure = Engine.scores

    def counted(self: Engine, factors: Any) -> Any:
        calls.append(self._only_layer(factors))
        return measure(self, factors)

    looks: list[int] = []
    look = Selection.measure

    def looked(self: Selection, state: Generation) -> None:
        looks.append(state.generation)
        look(self, state)

    monkeypatch.setattr(Engine, "scores", counted)
    monkeypatch.setattr(Selection, "measure", looked)
    command.json("tune", "--resume", run)
    assert calls == [line["layer"] for line in log(scores["run"])[8:]]
    assert looks == [8, 10]


def refused(command: Command, run: object, *arguments: object) -> str:
    assert command("tune", "--resume", run, *arguments) == 2, command.err
    lines = [line for line in command.err.splitlines() if not line.startswith(("resuming ", "tuning ", "sweep "))]
    assert len(lines) == 1
    assert lines[0].startswith("dfolora: --resume: ")
    assert str(run) in lines[0]
    assert not (Path(str(run)) / "adapter").exists()
    assert not (Path(str(run)) / "scores.json").exists()
    return lines[0]


def test_changed_data_are_refused(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 4)
    for name in ("dev.csv", "train.csv"):
        file = tmp_path / name
        before = file.read_text(encoding="utf-8")
        file.write_text(before.replace("film", "music"), encoding="utf-8")
        assert "changed" in refused(command, run)
        file.write_text(before, encoding="utf-8")
    assert command("tune", "--resume", run) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_tampered_losses_are_refused(command: Command, tmp_path: Path, name: str) -> None:
    """Seen by what is asked afterwards; random search asks for the same whatever the losses are."""
    # nevergrad's begin with forty or thirty points that do not depend on losses either
    run = cut(finished(command, tmp_path, "--optimizer", name, "--budget", 160), 39)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines[1:21]:
        line["losses"].reverse()
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    before = (run / "log.jsonl").read_bytes()
    assert "not the logged one" in refused(command, run)
    assert (run / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.jsonl", "{}\n", "line 1"),
        ("log.jsonl", "half a li\n", "line 1"),
        ("log.jsonl", "[1]\n", "line 1"),
        ("environment.json", "{}", "environment.json"),
        ("environment.json", "{", "environment.json"),
        ("config.yaml", "budget: [", "config.yaml"),
        ("config.yaml", "budgt: 8", "'budget'"),
        ("config.yaml", "- 8", "config.yaml"),
        ("subspace.safetensors", "nonsense", "subspace.safetensors"),
    ],
)
def test_damaged_files_are_refused(command: Command, tmp_path: Path, name: str, text: str, said: str) -> None:
    run = cut(finished(command, tmp_path), 4)
    (run / name).write_text(text, encoding="utf-8")
    assert said in refused(command, run)


@pytest.mark.parametrize("losses", [["a"] * 4, [[1.0]] * 4, [0.5] * 3, [0.5] * 5, 7])
def test_losses_that_are_none_are_refused(command: Command, tmp_path: Path, losses: Any) -> None:
    run = cut(finished(command, tmp_path), 4)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    lines[2]["losses"] = losses
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    refused(command, run)


def test_missing_files_are_refused(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 4)
    for name in ("subspace.safetensors", "environment.json", "config.yaml"):
        (run / name).rename(run / "aside")
        refused(command, run)
        (run / "aside").rename(run / name)
    assert command("tune", "--resume", run) == 0


def test_what_is_no_interrupted_run(command: Command, tmp_path: Path) -> None:
    scores = finished(command, tmp_path)
    assert command("tune", "--resume", scores["run"]) == 2
    assert "finished" in command.err
    assert "scores.json" in command.err
    run = cut(scores, 4)
    for extra in (["--budget", "80"], ["--config", str(run / "config.yaml")], ["--trust-remote-code"]):
        assert extra[0] in refused(command, run, *extra)
    refused(command, tmp_path / "nothing")
    refused(command, tmp_path)


def test_a_killed_process_goes_on(command: Command, tmp_path: Path) -> None:
    changes = ["--budget", "600", "--population", "20", "--seed", "5"]
    flags = ["tune", "--model", model("causal"), *csv_files(tmp_path), *SMALL, *changes, "--json"]
    start = [sys.executable, "-m", "dfolora.cli", *flags, "--output", str(tmp_path / "cut")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    file = tmp_path / "cut" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_bytes().count(b"\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was over before it could be killed"
    assert file.read_bytes().count(b"\n") > 5
    again = command.json("tune", "--resume", tmp_path / "cut")
    whole = command.json(*flags[:-1], "--output", tmp_path / "whole")
    assert_same(whole, again)
