"""A run of the method tangent that was interrupted goes on as if it had not been, or is refused in one line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_resume_refused import chained, plain_write, read
from test_tangent_runs import ONE, adapter_of, flag, state_of
from tiny_models import StopAt, Tune, given, log

import dfolora


def interrupted(tune: Tune, stop: int, *changes: object, kind: str = "causal") -> Path:
    """The folder of a run that Ctrl-C ended after a line of its log."""
    folder = tune.folder / f"until {stop} {len(list(tune.folder.iterdir()))}"
    options = given([each for each in tune.flags(kind=kind)])
    halves = {"halves": changes[-1] == "--halves"} if changes and str(changes[-1]).endswith("halves") else {}
    more = given(changes[: len(changes) // 2 * 2])
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**{**options, **more}, **halves, output=str(folder), listener=StopAt(stop))
    assert len(log(folder)) == stop + 1
    return folder


def resumed(tune: Tune, run: Path) -> dict[str, Any]:
    return tune.command.json("tune", "--resume", run)


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same log to the last count, the same adapter to the bit, the same scores."""
    assert log(first["run"]) == log(second["run"])
    weights = [(Path(scores["adapter"]) / "adapter_model.safetensors").read_bytes() for scores in (first, second)]
    assert weights[0] == weights[1]
    mere = ("seconds", "run", "adapter")
    assert {k: v for k, v in first.items() if k not in mere} == {k: v for k, v in second.items() if k not in mere}


@pytest.mark.parametrize(("kind", "stops"), [("masked", (3,)), ("causal", (0, 2, 4, 5)), ("encoder", (1,))])
def test_interrupted_between_rounds(tune: Tune, kind: str, stops: Sequence[int]) -> None:
    scores, lines = tune(kind=kind)
    assert len(lines) == 6
    for stop in stops:
        run = interrupted(tune, stop, kind=kind)
        best = min(lines[: min(stop, 2) + 1], key=lambda line: line["dev"]["loss"])
        if stop < 5:
            found = tune.command.json("evaluate", run, "--split", "dev")  # the best so far is there and can be used
            assert found["metrics"] == best["dev"]["metrics"]
        again = resumed(tune, run)
        assert_same(scores, again)


def test_killed_before_the_state_was_saved(tune: Tune) -> None:
    """While a line was being written, or with the line in the log and the round in no file."""
    scores, _ = tune(kind="causal")
    lines = (Path(scores["run"]) / "log.jsonl").read_bytes().splitlines(keepends=True)
    for logged, rest in ((0, 0.5), (1, 1.0), (4, 1.0)):
        run = interrupted(tune, logged)
        own = (run / "log.jsonl").read_bytes().splitlines(keepends=True)
        assert len(own) == logged + 1
        whole = tune.folder / f"whole {logged} {rest}"
        shutil.copytree(scores["run"], whole)
        for name in ("scores.json", "predictions.jsonl", "state.safetensors"):
            (whole / name).unlink()
        if logged:
            shutil.copy(run / "state.safetensors", whole / "state.safetensors")
        shutil.rmtree(whole / "adapter")
        line = lines[logged + 1]
        (whole / "log.jsonl").write_bytes(b"".join(lines[: logged + 1]) + line[: int(rest * len(line))])
        assert_same(scores, resumed(tune, whole))


def test_interrupted_twice_before_it_is_better_again(tune: Tune) -> None:
    """What was best before the first interruption still is at the second."""
    lines = log(interrupted(tune, 3))
    run = interrupted(tune, 2)
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(resume=str(run), listener=StopAt(3))
    assert log(run) == lines
    best = min(lines[:3], key=lambda line: line["dev"]["loss"])
    assert best["generation"] > 0
    assert tune.command.json("evaluate", run, "--split", "dev")["metrics"] == best["dev"]["metrics"]
    name = "model.layers.1.self_attn.o_proj"
    a = load_file(run / "adapter" / "adapter_model.safetensors")[f"base_model.model.{name}.lora_A.weight"]
    assert torch.equal(a[:2], state_of(run)[f"0/{best['generation']}/{name}"])
    assert not a[2:].any()


def test_a_model_with_a_window_goes_on_in_the_same_way(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether tails run alone is settled where the run begins, not where it goes on."""
    monkeypatch.setattr("dfolora.engine.shifts.agree", lambda *_: False)
    scores, _ = tune(*ONE, kind="causal")
    assert_same(scores, resumed(tune, interrupted(tune, 1, "--no-halves")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": 1}, "generation 2 is not of the part whose turn it is"),
        ({"joined": 0, "part": None}, "generation 2 is not of the part whose turn it is"),
        ({"reached": "low"}, "the note of generation 2 is not that of a round"),
        ({"share": [1]}, "the note of generation 2 is not that of a round"),
        (None, "generation 2 is not of the part whose turn it is"),
    ],
)
def test_a_log_that_was_changed_is_refused(tune: Tune, change: dict[str, Any] | None, message: str) -> None:
    run = interrupted(tune, 3)
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


def test_a_place_that_no_round_has_reached_is_refused(tune: Tune) -> None:
    run = interrupted(tune, 5)
    lines = read(run)
    lines[5]["note"]["joined"] = 7
    chained(run, lines)
    assert tune.command("tune", "--resume", run) == 2
    assert "generation 5 joins at round 7, which the log lacks" in tune.command.said[-1]


def test_another_state_is_refused(tune: Tune) -> None:
    run, other = interrupted(tune, 1), interrupted(tune, 2)
    shutil.copy(other / "state.safetensors", run / "state.safetensors")
    assert tune.command("tune", "--resume", run) == 2
    assert "which the log does not have" in tune.command.said[-1]
    elsewhere = interrupted(tune, 2, "--seed", 5)
    shutil.copy(run / "log.jsonl", other / "log.jsonl")
    shutil.copy(elsewhere / "state.safetensors", other / "state.safetensors")
    (line,) = [tune.command("tune", "--resume", other)]
    assert line == 2
    assert len(tune.command.said) == 1


def test_more_evaluations_than_it_began_with_are_refused(tune: Tune) -> None:
    run = interrupted(tune, 1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert tune.command("tune", "--resume", run, "--budget", 900) == 2
    (line,) = tune.command.said
    assert "--budget: a run of the method tangent deals it out when it begins" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("halves", [True, False])
def test_the_base_model_stays_where_no_round_helps_on_unseen_examples(tune: Tune, tmp_path: Path, halves: bool) -> None:
    """Here the dev set has the labels the wrong way round: what fits one half spoils the other."""
    file = tmp_path / "dev.csv"
    train = (tmp_path / "train.csv").read_text(encoding="utf-8").splitlines()
    swapped = [row[:-1] + str(1 - int(row[-1])) for row in train[1:]]
    file.write_text("\n".join([train[0], *swapped]) + "\n", encoding="utf-8")
    scores, lines = tune(flag(halves), kind="causal")
    note = lines[-1]["note"]
    assert note["joined"] == 0
    assert min(note["unseen"][1:]) > 0.98 * note["unseen"][0]
    assert scores["selected_at"] == 0
    assert scores["dev_tuned"] == scores["dev_zero_shot"]
    assert scores["tuned"] == scores["zero_shot"]
    assert lines[-1]["dev"] == lines[0]["dev"]
    adapter = adapter_of(scores)
    assert not any(each.any() for name, each in adapter.items() if "lora_A" in name)
    assert lines[-1]["losses"] == pytest.approx([lines[1]["note"]["from"]], abs=1e-5)

    for stop in (len(lines) - 2, len(lines) - 1):  # the same where it was interrupted before the end, or behind it
        assert_same(scores, resumed(tune, interrupted(tune, stop, flag(halves))))
