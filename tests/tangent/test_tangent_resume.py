"""A run of the method tangent that was interrupted goes on as if it had not been, or is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Runs
from safetensors.torch import load_file
from test_resume_refused import chained, plain_write, read
from test_tangent_end import against_the_model
from test_tangent_runs import ONE, state_of
from tiny_models import StopAt, Tune, given, log

import dfolora


def resumed(tune: Tune, run: Path) -> dict[str, Any]:
    return tune.command.json("tune", "--resume", run)


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same log to the last count, the same adapter to the bit, the same scores."""
    assert log(first["run"]) == log(second["run"])
    weights = [(Path(scores["adapter"]) / "adapter_model.safetensors").read_bytes() for scores in (first, second)]
    assert weights[0] == weights[1]
    mere = ("seconds", "run", "adapter")
    assert {k: v for k, v in first.items() if k not in mere} == {k: v for k, v in second.items() if k not in mere}


@pytest.mark.parametrize(("kind", "stops"), [("masked", (3,)), ("causal", (0, 2, 5)), ("encoder", (1,))])
def test_interrupted_between_rounds(tune: Tune, runs: Runs, kind: str, stops: Sequence[int]) -> None:
    """What is fitted to the training set so far is the best so far, in the second half, too."""
    scores, lines = runs.whole(kind)
    assert len(lines) == 6
    for stop in stops:
        run = runs.interrupted(tune.folder, stop, kind)
        if 0 < stop < 5:
            found = tune.command.json("evaluate", run, "--split", "dev")  # the best so far is there and can be used
            assert found["metrics"] == lines[min(stop, 2)]["dev"]["metrics"]
        assert_same(scores, resumed(tune, run))


def test_killed_before_the_state_was_saved(tune: Tune, runs: Runs) -> None:
    """While a line was being written, or with the line in the log and the round in no file."""
    scores, _ = runs.whole()
    lines = (Path(scores["run"]) / "log.jsonl").read_bytes().splitlines(keepends=True)
    for logged, rest in ((1, 0.5), (4, 1.0)):
        run = runs.interrupted(tune.folder, logged)
        own = (run / "log.jsonl").read_bytes().splitlines(keepends=True)
        assert len(own) == logged + 1
        whole = tune.folder / f"whole {logged} {rest}"
        shutil.copytree(scores["run"], whole)
        for name in ("scores.json", "predictions.jsonl", "state.safetensors"):
            (whole / name).unlink()
        shutil.copy(run / "state.safetensors", whole / "state.safetensors")
        shutil.rmtree(whole / "adapter")
        line = lines[logged + 1]
        (whole / "log.jsonl").write_bytes(b"".join(lines[: logged + 1]) + line[: int(rest * len(line))])
        assert_same(scores, resumed(tune, whole))


def test_interrupted_twice_before_the_second_half_has_ended(tune: Tune, runs: Runs) -> None:
    """What was best before the first interruption still is at the second."""
    _, whole = runs.whole()
    run = runs.interrupted(tune.folder, 2)
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(resume=str(run), listener=StopAt(3))
    assert log(run) == whole[:4]
    assert tune.command.json("evaluate", run, "--split", "dev")["metrics"] == whole[2]["dev"]["metrics"]
    name = "model.layers.1.self_attn.o_proj"
    a = load_file(run / "adapter" / "adapter_model.safetensors")[f"base_model.model.{name}.lora_A.weight"]
    assert a[:2].any()
    assert torch.equal(a[:2], state_of(run)[f"0/{name}"])
    assert not a[2:].any()


def test_a_model_with_a_window_goes_on_in_the_same_way(tune: Tune, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether tails run alone is settled where the run begins, not where it goes on."""
    monkeypatch.setattr("dfolora.engine.shifts.agree", lambda *_: False)
    scores, _ = tune(*ONE, kind="causal")
    assert_same(scores, resumed(tune, runs.interrupted(tune.folder, 1, halves=False)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": 1}, "generation 2 is not of the part whose turn it is"),
        ({"kept": True, "part": None}, "generation 2 is not of the part whose turn it is"),
        ({"reached": "low"}, "the note of generation 2 is not that of a round"),
        ({"share": [1]}, "the note of generation 2 is not that of a round"),
        (None, "generation 2 is not of the part whose turn it is"),
    ],
)
def test_a_log_that_was_changed_is_refused(tune: Tune, runs: Runs, change: dict[str, Any] | None, message: str) -> None:
    run = runs.interrupted(tune.folder, 3)
    lines = read(run)
    lines[2]["note"] = None if change is None else lines[2]["note"] | change
    for text, write in (("line 3 is not as it was written", plain_write), (message, chained)):
        write(run, lines)
        before = (run / "log.jsonl").read_bytes()
        assert tune.command("tune", "--resume", run) == 2
        (said,) = tune.command.said
        assert said.startswith("dfolora: --resume: ")
        assert text in said
        assert (run / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", [None, 1, "yes"])
def test_an_end_that_says_nothing_is_refused(tune: Tune, runs: Runs, kept: object) -> None:
    run = runs.interrupted(tune.folder, 5)
    lines = read(run)
    lines[5]["note"]["kept"] = kept
    chained(run, lines)
    assert tune.command("tune", "--resume", run) == 2
    assert "generation 5 is not of the part whose turn it is" in tune.command.said[-1]


def test_another_state_is_refused(tune: Tune, runs: Runs) -> None:
    run, other = runs.interrupted(tune.folder, 1), runs.interrupted(tune.folder, 2)
    shutil.copy(other / "state.safetensors", run / "state.safetensors")
    assert tune.command("tune", "--resume", run) == 2
    assert "which the log does not have" in tune.command.said[-1]
    elsewhere = runs.interrupted(tune.folder, 2, seed=5)
    shutil.copy(run / "log.jsonl", other / "log.jsonl")
    shutil.copy(elsewhere / "state.safetensors", other / "state.safetensors")
    assert tune.command("tune", "--resume", other) == 2
    assert len(tune.command.said) == 1


def test_more_evaluations_than_it_began_with_are_refused(tune: Tune, runs: Runs) -> None:
    run = runs.interrupted(tune.folder, 1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert tune.command("tune", "--resume", run, "--budget", 900) == 2
    (line,) = tune.command.said
    assert "--budget: a run of the method tangent deals it out when it begins" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_base_model_is_the_result_after_an_interruption_too(tune: Tune, tmp_path: Path) -> None:
    """Interrupted before the end, or behind it."""
    against_the_model(tune, tmp_path)
    scores, lines = tune(*ONE, kind="causal")
    assert lines[-1]["note"]["kept"] is False
    options = given(tune.flags(kind="causal"))
    for stop in (len(lines) - 2, len(lines) - 1):
        run = tmp_path / f"until {stop}"
        with pytest.raises(KeyboardInterrupt):
            dfolora.tune(**options, halves=False, output=str(run), listener=StopAt(stop))
        assert_same(scores, resumed(tune, run))
